"""A synthetic lesion cohort by recipe: n images of each class and attributes, each from its own seed.

Truncation scales the latent: below 1 images are nearer the mean, safer and less varied (Brock 2019, section 3.1). The
members of an ensemble take turns; that several small generators together are more varied than one is known
(Eilertsen 2021). Candidates that the filter rejects are counted, and the next seeds are tried.

A cohort that is stopped goes on from its last batch: batches lie in ``parts/`` until the cohort is whole.
"""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from pipeline.errors import InputError
from pipeline.files import sha256_json, write_bytes, write_json
from pipeline.generate.cohort_filter import ACCEPTED, MEMORIZED, OUT_OF_MANIFOLD, CohortFilter
from pipeline.generate.ensemble import Ensemble, Member
from pipeline.generate.recipe import SEED_SPACING, counts_by_class, resolve_recipe
from pipeline.generate_settings import CohortFilterSettings, CohortLine, GenerateLesionsSettings
from pipeline.intensity import from_int16
from pipeline.lesion_attributes import ATTRIBUTE_PREFIX
from pipeline.prepared_set import IMAGES_ARRAY, ImageSet, read_image_set
from pipeline.records import ProgressCallback
from pipeline.spreading import Spread, here

COHORT_TABLE, COHORT_FACTS = "cohort.parquet", "cohort.json"
_BATCH = 64
_PARTS = "parts"


_Rows = list[dict[str, Any]]
_Candidates = tuple[npt.NDArray[np.int16], list[str]]


@dataclass(frozen=True)
class CohortFiles:
    """What other processes need to make candidates.

    Attributes:
        members: the generators.
        prepared: folder of the real images that the filter is calibrated on; None without a filter.
        filter: its settings.
    """

    members: tuple[Member, ...]
    prepared: Path | None
    filter: CohortFilterSettings


@dataclass
class _Tally:
    """What has become of the candidates of one line."""

    images: list[npt.NDArray[np.int16]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)


def make_cohort(
    members: Sequence[Member],
    settings: GenerateLesionsSettings,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: ProgressCallback,
    prepared: ImageSet | None = None,
    spread: Spread = here,
    prepared_folder: Path | None = None,
) -> dict[str, Any]:
    """Write ``images.npy``, ``cohort.parquet`` and ``cohort.json``.

    Candidate i is made from the latent drawn with seed ``seed * 2**20 + i`` alone, and an attribute that is asked for
    as a range from the numbers drawn after it, so that any image can be made again from its row.

    Args:
        members: the generators, in turns.
        settings: the recipe; its seed, where it has one, is used instead of ``seed``.
        seed: of the run.
        device: where images are made.
        folder: output; the parts of a stopped cohort in it are gone on with.
        progress: counted in images.
        prepared: the real images that the filter is calibrated on; needed where it is active.
        spread: where candidates are made; elsewhere than here on a CPU only.
        prepared_folder: of ``prepared``, for processes elsewhere.

    Returns:
        Facts: images, per_class, candidates, rejected by reason, models.

    Raises:
        InputError: the recipe asks for what a generator does not know, or the filter rejects too many candidates.
    """
    ensemble = Ensemble(members, device)
    known = ensemble.settings
    lines = resolve_recipe(settings, known.classes, known.attributes)
    judge = None
    if settings.filter.active and prepared is not None:
        judge = CohortFilter.fit(prepared, settings.filter)
    first = (seed if settings.seed is None else settings.seed) * SEED_SPACING
    if spread is here or device.type != "cpu":
        maker = _Maker(ensemble, settings, judge, first, folder, here, None)
    else:
        files = CohortFiles(tuple(members), None if judge is None else prepared_folder, settings.filter)
        maker = _Maker(ensemble, settings, judge, first, folder, spread, files)
    total, tallies, offset = sum(line.count for line in lines), list[_Tally](), 0
    for number, line in enumerate(lines):
        done = sum(len(tally.rows) for tally in tallies)

        def report(more: int, done: int = done) -> None:
            progress("synthetic images", done + more, total)

        tallies.append(maker.fill(number, line, offset, report))
        offset += line.count * maker.attempts
    return _write(folder, tallies, lines, ensemble, judge)


@dataclass(frozen=True)
class _Maker:
    """Makes and judges candidates, batch by batch."""

    ensemble: Ensemble
    settings: GenerateLesionsSettings
    judge: CohortFilter | None
    first_seed: int
    folder: Path
    spread: Spread
    files: CohortFiles | None

    @property
    def attempts(self) -> int:
        """Candidates for each image, at the most."""
        return self.settings.filter.attempts if self.judge is not None else 1

    def fill(self, number: int, line: CohortLine, offset: int, progress: Callable[[int], None]) -> _Tally:
        """Candidates ``offset`` and following until the line has its images.

        Raises:
            InputError: the candidates are used up first.
        """
        tally = _Tally()
        for rows, (images, verdicts) in self._batches(number, line, offset):
            for row, image, verdict in zip(rows, images, verdicts, strict=True):
                if len(tally.rows) == line.count:
                    break
                tally.verdicts[verdict] += 1
                if verdict == ACCEPTED:
                    tally.rows.append(row)
                    tally.images.append(image)
            progress(len(tally.rows))
            if len(tally.rows) == line.count:
                break
        if len(tally.rows) < line.count:
            shutil.rmtree(self.folder / _PARTS)
            raise _used_up(line, tally)
        return tally

    def _row(self, line: CohortLine, candidate: int) -> dict[str, Any]:
        seed = self.first_seed + candidate
        model = candidate % len(self.ensemble.members)
        return {
            "lesion_class": line.lesion_class,
            "seed": seed,
            "truncation": self.settings.truncation if line.truncation is None else line.truncation,
            "model": model,
            "attributes": self._drawn(line, seed, self.ensemble.latent_sizes[model]),
        }

    def _drawn(self, line: CohortLine, seed: int, latent_size: int) -> dict[str, str | float]:
        """Levels, and numbers drawn evenly from ranges; the draw comes after the latent's."""
        rng = torch.Generator().manual_seed(seed)
        torch.randn(latent_size, generator=rng)
        drawn: dict[str, str | float] = {}
        for attribute in self.ensemble.settings.attributes:
            share = float(torch.rand((), generator=rng))
            if attribute.name in line.attributes:
                value = attribute.resolve(line.attributes[attribute.name])
                drawn[attribute.name] = value if isinstance(value, str) else value[0] + share * (value[1] - value[0])
        return drawn

    def _batches(self, number: int, line: CohortLine, offset: int) -> Iterator[tuple[_Rows, _Candidates]]:
        """Candidates in order: those of an earlier try, then new ones, which are kept for a later try."""
        limit = line.count * self.attempts

        def rows_from(start: int) -> _Rows:
            return [self._row(line, offset + i) for i in range(start, min(start + _BATCH, limit))]

        def part(start: int) -> Path:
            return self.folder / _PARTS / f"{number:05d}-{start:08d}.npz"

        start = 0
        while start < limit and part(start).is_file():
            stored = np.load(part(start), allow_pickle=False)
            yield rows_from(start), (stored["images"], stored["verdicts"].tolist())
            start += _BATCH
        starts = range(start, limit, _BATCH)
        asked, shown = tee(map(rows_from, starts))
        for begin, rows, made in zip(starts, shown, self.spread(self._work(), asked), strict=True):
            part(begin).parent.mkdir(exist_ok=True)
            content = io.BytesIO()
            np.savez(content, images=made[0], verdicts=np.asarray(made[1]))
            write_bytes(part(begin), content.getvalue())
            yield rows, made

    def _work(self) -> Callable[[_Rows], _Candidates]:
        if self.files is None:
            return partial(_candidates, self.ensemble, self.judge)
        return partial(_candidates_of_files, self.files, torch.get_num_threads())


def _candidates(ensemble: Ensemble, judge: CohortFilter | None, rows: _Rows) -> _Candidates:
    """Images and verdicts of the candidates of one class."""
    images = ensemble.images(rows)
    if judge is None:
        return images, [ACCEPTED] * len(rows)
    index = ensemble.settings.classes.index(rows[0]["lesion_class"])
    return images, judge.judge(from_int16(images), index)


def _candidates_of_files(files: CohortFiles, threads: int, rows: _Rows) -> _Candidates:
    """The same in a process that has only the files; another number of threads would add in another order."""
    torch.set_num_threads(threads)
    return _candidates(*_loaded(files), rows)


@lru_cache(maxsize=1)
def _loaded(files: CohortFiles) -> tuple[Ensemble, CohortFilter | None]:
    ensemble = Ensemble(files.members, torch.device("cpu"))
    if files.prepared is None:
        return ensemble, None
    return ensemble, CohortFilter.fit(read_image_set(files.prepared), files.filter)


def _write(
    folder: Path,
    tallies: Sequence[_Tally],
    lines: Sequence[CohortLine],
    ensemble: Ensemble,
    judge: CohortFilter | None,
) -> dict[str, Any]:
    rows = [row for tally in tallies for row in tally.rows]
    np.save(folder / IMAGES_ARRAY, np.stack([image for tally in tallies for image in tally.images]))
    _table(rows, ensemble).write_parquet(folder / COHORT_TABLE)
    verdicts = Counter[str]()
    for tally in tallies:
        verdicts.update(tally.verdicts)
    digests = [member.sha256 for member in ensemble.members]
    classes = list(ensemble.settings.classes)
    filtered = None
    if judge is not None:
        by_line = [
            {"lesion_class": line.lesion_class} | _counts(tally.verdicts)
            for line, tally in zip(lines, tallies, strict=True)
        ]
        filtered = judge.facts(classes) | {"lines": by_line}
    recipe = counts_by_class(lines, classes)
    write_json(
        folder / COHORT_FACTS,
        {
            "classes": classes,
            "recipe": recipe,
            "lines": [line.model_dump(mode="json") for line in lines],
            "model_sha256": digests[0] if len(digests) == 1 else sha256_json(digests),
            "models": digests,
            "attributes": [attribute.model_dump(mode="json") for attribute in ensemble.settings.attributes],
            "filter": filtered,
        },
    )
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
    facts: dict[str, Any] = {"images": len(rows), "per_class": recipe}
    if judge is not None:
        facts |= {"candidates": verdicts.total(), "rejected": _counts(verdicts)}
    return facts | ({"models": len(digests)} if len(digests) > 1 else {})


def _table(rows: Sequence[dict[str, Any]], ensemble: Ensemble) -> pl.DataFrame:
    """One row an image: image, lesion_class, seed, truncation, model_sha256, and a column for each attribute."""
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("lesion_class", "seed", "truncation")}
    columns |= {"model_sha256": [ensemble.members[row["model"]].sha256 for row in rows]}
    for attribute in ensemble.settings.attributes:
        values = [row["attributes"].get(attribute.name) for row in rows]
        kind = pl.String if attribute.levels else pl.Float64
        columns[f"{ATTRIBUTE_PREFIX}{attribute.name}"] = pl.Series(values, dtype=kind)
    return pl.DataFrame({"image": range(len(rows))} | columns)


def _counts(verdicts: Counter[str]) -> dict[str, int]:
    return {name: verdicts[name] for name in (OUT_OF_MANIFOLD, MEMORIZED)}


def _used_up(line: CohortLine, tally: _Tally) -> InputError:
    rejected = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in _counts(tally.verdicts).items())
    return InputError(
        "Enough candidates of every line must pass the filter.",
        found=f"{line.lesion_class}: {len(tally.rows)} of {line.count} images; rejected: {rejected}",
        allowed=f"{line.count} images out of {tally.verdicts.total()} candidates",
        change="Train longer or on more images, lower the truncation, or raise generate.lesions.filter.attempts.",
    )
