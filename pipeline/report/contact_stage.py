"""The contact sheet's own stage: looks at every series of a catalog once, and keeps what the pages show.

It is kept apart from the report so that a report written again after a training does not look at all scans again.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, JsonValue

from pipeline.catalog import LOOK_ALIKES_FILE, Catalog, read_catalog
from pipeline.files import write_text
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.report.cohort_flags import cohort_flags
from pipeline.report.contact_cards import Card, volume_card
from pipeline.report.image_groups import ImageGroup, image_groups
from pipeline.report.quality_flags import Flag
from pipeline.settings import FrozenSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

STAGE_NAME = "contact_sheet"
SHEET_FILE = "sheet.json"


class ContactSheet(BaseModel):
    """What the sheet shows.

    Attributes:
        cards: volumes, most suspicious first.
        groups: images without geometry.
    """

    model_config = ConfigDict(frozen=True)
    cards: tuple[Card, ...]
    groups: tuple[ImageGroup, ...]

    @property
    def flag_counts(self) -> dict[str, int]:
        """Series by flag."""
        counts: dict[str, int] = defaultdict(int)
        for card in self.cards:
            for code in {flag.code for flag in card.flags}:
                counts[code] += 1
        return dict(counts)


class _NoSettings(FrozenSettings):
    """Nothing of the settings shapes the sheet."""


def contact_sheet(workspace: Workspace, ingest: StageRecord, *, progress: ProgressCallback = silent) -> StageRecord:
    """Look at every series of a catalog, or find it done.

    Args:
        workspace: where the output goes.
        ingest: record of the catalog.
        progress: counted in series.

    Returns:
        Record with the facts series, flagged, flags (series by flag), image_groups.
    """
    return run_stage(
        workspace,
        Stage(STAGE_NAME, "pipeline.report.contact_stage", _body),
        _NoSettings(),
        records={"ingest": ingest},
        progress=progress,
    )


def read_sheet(folder: Path) -> ContactSheet:
    """The sheet that `contact_sheet` wrote into ``folder``."""
    return ContactSheet.model_validate_json((folder / SHEET_FILE).read_text(encoding="utf-8"))


def read_look_alikes(catalog_folder: Path) -> list[dict[str, Any]]:
    """Pairs of series that look alike, most alike first; none where ingest did not look for them."""
    path = catalog_folder / LOOK_ALIKES_FILE
    if not path.is_file():
        return []
    return pl.read_parquet(path).sort(["similarity", "series_id"], descending=[True, False]).to_dicts()


def _body(context: StageContext) -> dict[str, JsonValue]:
    folder = context.inputs["ingest"]
    catalog = read_catalog(folder)
    sheet = ContactSheet(
        cards=_cards(catalog, read_look_alikes(folder), context.progress),
        groups=_groups(catalog),
    )
    write_text(context.folder / SHEET_FILE, sheet.model_dump_json())
    return {
        "series": len(sheet.cards),
        "flagged": sum(bool(card.flags) for card in sheet.cards),
        "flags": dict(sorted(sheet.flag_counts.items())),
        "image_groups": len(sheet.groups),
    }


def _cards(catalog: Catalog, pairs: Sequence[Mapping[str, Any]], progress: ProgressCallback) -> tuple[Card, ...]:
    rows = catalog.series.filter(pl.col("kind") == "volume").sort("series_id").to_dicts()
    lesions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for lesion in catalog.lesions.sort("lesion_id").to_dicts():
        lesions[lesion["series_id"]].append(lesion)
    cards, members = [], []
    for done, row in enumerate(rows):
        progress("series inspected", done, len(rows))
        card, member = volume_card(catalog, row, lesions[row["series_id"]])
        cards.append(card)
        members.append(member)
    compared, twins = cohort_flags(members), _look_alike_flags(pairs)
    flagged = [card.flagged([*compared.get(card.series_id, []), *twins.get(card.series_id, [])]) for card in cards]
    return tuple(sorted(flagged, key=lambda card: (-card.score, card.series_id)))


def _look_alike_flags(pairs: Sequence[Mapping[str, Any]]) -> dict[str, list[Flag]]:
    """One flag a series: its closest look-alike."""
    found: dict[str, list[Flag]] = {}
    for pair in pairs:
        for own, other in (("", "other_"), ("other_", "")):
            text = f"{pair['kind']}: {pair[other + 'series_id']} of {pair[other + 'subject_id']}"
            found.setdefault(pair[own + "series_id"], [Flag(code="LOOK_ALIKE", found=text)])
    return found


def _groups(catalog: Catalog) -> tuple[ImageGroup, ...]:
    rows = catalog.series.filter(pl.col("kind") == "image").sort("series_id").to_dicts()
    classes = dict(catalog.lesions.filter(pl.col("mask_value") == -1).select("series_id", "lesion_class").iter_rows())
    return image_groups(catalog, rows, classes)
