"""Fidelity and diversity of a cohort against held-out real images: KID, FID, FID∞, precision, recall, coverage.

Every number stands between a floor (training images against held-out ones: what perfect images would score) and
ceilings (noise; within a class, training images of shuffled classes), in two or more named feature spaces, pooled and
by class. Features are bounded (`FeatureScale.bounded`), scaled by the held-out real images. *Relative KID* is
(KID − floor) / (noise − floor): 0 is as good as training images, 1 as bad as noise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.features import Extractor, Features, FeatureScale
from pipeline.metrics.bootstrap import mean_interval
from pipeline.metrics.fid import fid, fid_infinity
from pipeline.metrics.kid import kid, kid_interval
from pipeline.metrics.precision_recall import manifold_hits
from pipeline.records import ProgressCallback
from pipeline.results import Cell
from pipeline.settings import EvaluateLesionsSettings

COMPARISONS = {
    "synthetic": "synthetic against held-out real",
    "floor": "floor: training against held-out real",
    "ceiling": "ceiling: noise against held-out real",
    "shuffled": "ceiling: training, classes shuffled, against held-out real",
}
ALL_CLASSES = "all classes"
_SCORES = ("kid", "kid_se", "fid", "fid_infinity", "fid_infinity_se", "precision", "recall", "density", "coverage")

Row = dict[str, Cell]


def fidelity_rows(
    study: Study,
    extractors: Sequence[Extractor],
    settings: EvaluateLesionsSettings,
    seed: int,
    progress: ProgressCallback,
) -> list[Row]:
    """One row an extractor, class (and pooled) and comparison; None where a side has too few images."""
    sides = _sides(study, seed)
    rows: list[Row] = []
    for number, extractor in enumerate(extractors, 1):
        embedded = extractor(study.held_out.images)
        scale = FeatureScale.fit(embedded)
        real = scale.bounded(embedded)
        own: list[Row] = []
        known: dict[int, Features] = {}  # floor and shuffled classes are the same images
        for comparison, cohort in sides.items():
            key = id(cohort.images)
            if key not in known:
                known[key] = scale.bounded(extractor(cohort.images)) if len(cohort) else real[:0]
            for name, index in _classes(study, comparison):
                row: Row = {
                    "extractor": extractor.name,
                    "lesion_class": name,
                    "comparison": comparison,
                    "title": COMPARISONS[comparison],
                }
                own.append(row | _compare(study.held_out, real, cohort, known[key], index, settings, seed))
        rows += _with_relative_kid(own)
        progress("feature spaces compared", number, len(extractors))
    return rows


def _sides(study: Study, seed: int) -> dict[str, Cohort]:
    rng = torch.Generator().manual_seed(seed)
    held_out, train = study.held_out, study.train
    noise = torch.rand(held_out.images.shape, generator=rng) * 2 - 1
    shuffled = train.classes[torch.randperm(len(train), generator=rng)]
    return {
        "synthetic": study.synthetic,
        "floor": train,
        "ceiling": Cohort(noise, held_out.classes, held_out.subjects),
        "shuffled": Cohort(train.images, shuffled, train.subjects),
    }


def _classes(study: Study, comparison: str) -> Iterator[tuple[str, int | None]]:
    if comparison != "shuffled":  # pooled, shuffling changes nothing
        yield ALL_CLASSES, None
    for index, name in enumerate(study.class_names):
        yield name, index


def _compare(
    held_out: Cohort,
    real: Features,
    cohort: Cohort,
    features: Features,
    index: int | None,
    settings: EvaluateLesionsSettings,
    seed: int,
) -> Row:
    """Scores of one cohort, of one class or pooled."""
    mine = np.ones(len(held_out), np.bool_) if index is None else (held_out.classes == index).numpy()
    theirs = np.ones(len(cohort), np.bool_) if index is None else (cohort.classes == index).numpy()
    subjects = [name for name, chosen in zip(held_out.subjects, mine, strict=True) if chosen]
    of_real, of_cohort = real[mine], features[theirs]
    counts: Row = {"real_images": len(of_real), "images": len(of_cohort)}
    if min(len(of_real), len(of_cohort)) <= max(settings.neighbors, 3):
        return counts | dict.fromkeys(_SCORES) | {"too_few_for_fid": True}
    distance = kid(of_real, of_cohort, np.random.default_rng(seed), subsets=settings.kid_subsets)
    frechet = fid(of_real, of_cohort)
    scores: Row = {
        "kid": distance.value,
        "kid_se": distance.standard_error,
        "fid": frechet.value,
        **_fid_infinity(of_real, of_cohort, seed),
        "too_few_for_fid": frechet.too_few,
        "features": frechet.features,
    }
    if len(set(subjects)) >= 2:
        low, high = kid_interval(
            of_real, of_cohort, subjects, np.random.default_rng(seed), resamples=settings.bootstrap
        )
        scores |= {"kid_low": low, "kid_high": high}
    return counts | scores | _manifold(of_real, of_cohort, subjects, settings, seed)


def _fid_infinity(real: Features, cohort: Features, seed: int) -> Row:
    """FID∞ with the error of its line, or None for cohorts that are too small for one."""
    try:
        found = fid_infinity(real, cohort, np.random.default_rng(seed), subsets_of="both", points=5)
    except InputError:
        return {"fid_infinity": None, "fid_infinity_se": None}
    return {"fid_infinity": found.value, "fid_infinity_se": found.standard_error}


def _manifold(
    real: Features, cohort: Features, subjects: Sequence[str], settings: EvaluateLesionsSettings, seed: int
) -> Row:
    """Shares with intervals; the balls stay, subjects (or synthetic images) are drawn."""
    hits = manifold_hits(real, cohort, settings.neighbors)
    images = [str(number) for number in range(len(cohort))]
    shares: dict[str, tuple[npt.NDArray[np.floating], Sequence[str]]] = {
        "precision": (hits.precise.astype(np.float64), images),
        "density": (hits.density, images),
        "recall": (hits.recalled.astype(np.float64), subjects),
        "coverage": (hits.covered.astype(np.float64), subjects),
    }
    row: Row = {}
    for name, (values, owners) in shares.items():
        row[name] = float(values.mean())
        if len(set(owners)) >= 2:
            interval = mean_interval(values, owners, np.random.default_rng(seed), resamples=settings.bootstrap)
            row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def _with_relative_kid(rows: Sequence[Row]) -> list[Row]:
    """Add (KID − floor) / (noise − floor), from the rows of the same class."""
    known = {(row["lesion_class"], row["comparison"]): row["kid"] for row in rows}
    found = []
    for row in rows:
        floor, noise = (_number(known.get((row["lesion_class"], side))) for side in ("floor", "ceiling"))
        kid_value = _number(row["kid"])
        relative = (kid_value - floor) / (noise - floor) if noise > floor else math.nan
        found.append(row | {"kid_relative": relative if math.isfinite(relative) else None})
    return found


def ranking_disagreements(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Sentences on rankings that depend on the extractor: of the classes, and of synthetic images beside the floor.

    Classes are ranked by the relative KID of their synthetic images. Pairs whose KID intervals overlap in an extractor
    are not ranked by it.
    """
    spaces: dict[str, list[Mapping[str, Cell]]] = {}
    for row in rows:
        spaces.setdefault(str(row["extractor"]), []).append(row)
    found = []
    classes = sorted({str(row["lesion_class"]) for row in rows} - {ALL_CLASSES})
    for number, first in enumerate(classes):
        for second in classes[number + 1 :]:
            orders = {name: _order(own, (first, "synthetic"), (second, "synthetic")) for name, own in spaces.items()}
            if {-1, 1} <= set(orders.values()):
                closer = {name: first if order < 0 else second for name, order in orders.items() if order}
                words = ", ".join(f"{name}: {which}" for name, which in closer.items())
                found.append(f"Which of {first} and {second} is closer to real depends on the features ({words}).")
    verdicts = {name: _order(own, (ALL_CLASSES, "synthetic"), (ALL_CLASSES, "floor")) for name, own in spaces.items()}
    if len(set(verdicts.values())) > 1:
        words = ", ".join(f"{name}: {_WORDS[order]}" for name, order in verdicts.items())
        found.append(f"Whether synthetic images can be told from training images depends on the features ({words}).")
    return found


_WORDS = {-1: "closer to held-out ones", 0: "no difference shown", 1: "farther from held-out ones"}


def _order(rows: Sequence[Mapping[str, Cell]], first: tuple[str, str], second: tuple[str, str]) -> int:
    """-1 where the first has the lower KID with intervals apart, 1 where the second has, 0 otherwise."""
    known = {(row["lesion_class"], row["comparison"]): row for row in rows}
    ends = [[_number(known.get(key, {}).get(name)) for name in ("kid_low", "kid_high")] for key in (first, second)]
    if ends[0][1] < ends[1][0]:
        return -1
    return 1 if ends[1][1] < ends[0][0] else 0


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, int | float) else math.nan
