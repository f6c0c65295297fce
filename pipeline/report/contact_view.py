"""What a page shows of the contact sheet: the cards on it, what the flags mean, what the ingest is made of."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.cohort_flags import meaning
from pipeline.report.contact_cards import CT_WINDOW, Card
from pipeline.report.contact_stage import ContactSheet
from pipeline.report.image_groups import ImageGroup
from pipeline.report.quality_flags import Meaning
from pipeline.report.tables import TableView, table_view
from pipeline.results import Column, ResultTable

SHEET_PAGE = "contact_sheet.html"
CARDS_IN_REPORT = 60
"""Cards embedded in the report; all of them are on the sheet beside it."""

CARDS_ON_A_PAGE = 1000
GROUPS_IN_REPORT = 12
_LOOK_ALIKES_SHOWN = 100
_SUSPICIOUS_SHARE = 0.75
_WEIGHTS = {3: "look now", 2: "look", 1: "know"}


@dataclass(frozen=True)
class ContactView:
    """One page's part of the sheet.

    Attributes:
        cards: cards shown, most suspicious first.
        total: series in the ingest.
        flagged: series with a flag that asks for a look.
        groups: images without geometry, by class.
        groups_total: all such groups.
        tables: composition, flags, look-alikes.
        meanings: meaning of every flag on the cards.
        flag_options: (flag, cards with it on this page).
        modalities: modalities on this page.
        classes: lesion classes on this page.
        link: name of the page with the whole sheet; empty on that page itself.
        ct_window: HU shown black and white.
    """

    cards: tuple[Card, ...]
    total: int
    flagged: int
    groups: tuple[ImageGroup, ...]
    groups_total: int
    tables: tuple[TableView, ...]
    meanings: Mapping[str, Meaning]
    flag_options: tuple[tuple[str, int], ...]
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    link: str
    ct_window: tuple[float, float] = CT_WINDOW

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.total and not self.groups_total


def report_view(sheet: ContactSheet, look_alikes: Sequence[Mapping[str, Any]]) -> ContactView:
    """The part that the report embeds: the most suspicious series and a sample of the others."""
    cards = chosen_cards(sheet.cards, CARDS_IN_REPORT)
    return _view(sheet, cards, sheet.groups[:GROUPS_IN_REPORT], look_alikes, SHEET_PAGE)


def sheet_views(sheet: ContactSheet, look_alikes: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ContactView], ...]:
    """(file name, view) of each page of the whole sheet."""
    starts = range(0, max(1, len(sheet.cards)), CARDS_ON_A_PAGE)
    return tuple(
        (
            page_name(number),
            _view(
                sheet,
                sheet.cards[start : start + CARDS_ON_A_PAGE],
                sheet.groups if number == 1 else (),
                look_alikes if number == 1 else (),
                "",
            ),
        )
        for number, start in enumerate(starts, 1)
    )


def page_name(number: int) -> str:
    """File name of a page of the sheet, from 1."""
    return SHEET_PAGE if number == 1 else SHEET_PAGE.replace(".", f"_{number}.")


def chosen_cards(cards: Sequence[Card], most: int) -> tuple[Card, ...]:
    """At most ``most`` cards of a sorted sheet: the most suspicious, then others spread evenly over the rest."""
    if len(cards) <= most:
        return tuple(cards)
    first = min(sum(card.score > 0 for card in cards), round(most * _SUSPICIOUS_SHARE))
    rest = cards[first:]
    sample = [rest[place * len(rest) // (most - first)] for place in range(most - first)]
    return (*cards[:first], *sample)


def _view(
    sheet: ContactSheet,
    cards: Sequence[Card],
    groups: Sequence[ImageGroup],
    look_alikes: Sequence[Mapping[str, Any]],
    link: str,
) -> ContactView:
    here = Counter(flag.code for card in cards for flag in card.flags)
    order = sorted(here, key=lambda code: (-meaning(code).weight, code))
    tables = (_composition(sheet), _flag_table(sheet), _look_alike_table(look_alikes))
    return ContactView(
        cards=tuple(cards),
        total=len(sheet.cards),
        flagged=sum(any(meaning(flag.code).weight > 1 for flag in card.flags) for card in sheet.cards),
        groups=tuple(groups),
        groups_total=len(sheet.groups),
        tables=tuple(table for table in tables if table is not None),
        meanings={code: meaning(code) for code in order},
        flag_options=tuple((code, here[code]) for code in order),
        modalities=tuple(sorted({card.modality for card in cards if card.modality})),
        classes=tuple(sorted({name for card in cards for name, _ in card.classes})),
        link=link,
    )


def _composition(sheet: ContactSheet) -> TableView | None:
    """Series by modality, sequence, body part and volume."""
    kinds: dict[tuple[str, str, str, str], list[Card]] = defaultdict(list)
    for card in sheet.cards:
        kinds[(card.modality, card.sequence, card.body_part, card.volume_label)].append(card)
    if not kinds:
        return None
    rows = tuple(
        {
            "kind": " · ".join(word for word in kind if word) or "unknown",
            "series": len(cards),
            "subjects": len({card.subject_id for card in cards}),
            "planes": _most_common(card.plane for card in cards),
            "matrix": _most_common(card.matrix for card in cards),
            "spacing": _most_common(card.spacing for card in cards),
        }
        for kind, cards in sorted(kinds.items())
    )
    columns = (
        Column(key="kind", title="Modality, sequence, body part"),
        Column(key="series", title="Series"),
        Column(key="subjects", title="Subjects"),
        Column(key="planes", title="Slices"),
        Column(key="matrix", title="Matrix"),
        Column(key="spacing", title="Spacing", unit="mm"),
    )
    caption = "The most frequent values of each kind, with how many others there are."
    return table_view(
        ResultTable(key="qc_composition", title="What was ingested", caption=caption, columns=columns, rows=rows)
    )


def _most_common(values: Any) -> str:
    """The most frequent value, how often it occurs, and how many other values there are."""
    counts = Counter(values)
    value, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    others = len(counts) - 1
    return f"{value} ({count}; {others} other{'s' if others > 1 else ''})" if others else str(value)


def _flag_table(sheet: ContactSheet) -> TableView | None:
    counts = sheet.flag_counts
    if not counts:
        return None
    order = sorted(counts, key=lambda code: (-meaning(code).weight, -counts[code], code))
    rows = tuple(
        {
            "flag": code,
            "series": counts[code],
            "weight": _WEIGHTS[meaning(code).weight],
            "rule": meaning(code).rule,
            "look": meaning(code).look,
        }
        for code in order
    )
    columns = (
        Column(key="flag", title="Flag"),
        Column(key="series", title="Series"),
        Column(key="weight", title="Weight"),
        Column(key="rule", title="Raised when"),
        Column(key="look", title="What may be behind it"),
    )
    caption = "Flags are reasons to look, no verdicts. No flag does not mean that a series is right."
    return table_view(ResultTable(key="qc_flags", title="Flags", caption=caption, columns=columns, rows=rows))


def _look_alike_table(pairs: Sequence[Mapping[str, Any]]) -> TableView | None:
    if not pairs:
        return None
    keys = ("series_id", "subject_id", "other_series_id", "other_subject_id", "kind", "similarity")
    rows = tuple({key: pair[key] for key in keys} for pair in pairs[:_LOOK_ALIKES_SHOWN])
    columns = (
        Column(key="series_id", title="Series"),
        Column(key="subject_id", title="Subject"),
        Column(key="other_series_id", title="Looks like"),
        Column(key="other_subject_id", title="Of subject"),
        Column(key="kind", title="How"),
        Column(key="similarity", title="Similarity", digits=4),
    )
    caption = (
        f"{len(pairs)} pairs of series of different subjects with equal or nearly equal pixels, most alike first; "
        f"at most {_LOOK_ALIKES_SHOWN} are shown."
    )
    return table_view(
        ResultTable(key="qc_look_alikes", title="Look-alikes", caption=caption, columns=columns, rows=rows)
    )
