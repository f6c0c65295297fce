"""Fidelity and diversity of a cohort against held-out real images: KID, precision, recall, density, coverage.

Every number stands between a floor (training images against held-out ones: what perfect images would score) and a
ceiling (noise against held-out images), in two named feature spaces, pooled and by class.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.features import Extractor, Features, FeatureScale
from pipeline.metrics.kid import kid
from pipeline.metrics.precision_recall import manifold_scores
from pipeline.records import ProgressCallback
from pipeline.results import Cell
from pipeline.settings import EvaluateLesionsSettings

COMPARISONS = {
    "synthetic": "synthetic against held-out real",
    "floor": "floor: training against held-out real",
    "ceiling": "ceiling: noise against held-out real",
}


def fidelity_rows(
    study: Study,
    extractors: Sequence[Extractor],
    settings: EvaluateLesionsSettings,
    seed: int,
    progress: ProgressCallback,
) -> list[dict[str, Cell]]:
    """One row an extractor, class (and pooled) and comparison; None where a side has too few images."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(study.held_out.images.shape, generator=rng) * 2 - 1
    sides = {
        "synthetic": study.synthetic,
        "floor": study.train,
        "ceiling": Cohort(noise, study.held_out.classes, study.held_out.subjects),
    }
    rows: list[dict[str, Cell]] = []
    for number, extractor in enumerate(extractors, 1):
        unscaled = extractor(study.held_out.images)
        scale = FeatureScale.fit(unscaled)
        real = scale.apply(unscaled)
        for comparison, cohort in sides.items():
            features = scale.apply(extractor(cohort.images)) if len(cohort) else real[:0]
            for name, index in _classes(study):
                of_real = real if index is None else real[(study.held_out.classes == index).numpy()]
                of_cohort = features if index is None else features[(cohort.classes == index).numpy()]
                row: dict[str, Cell] = {
                    "extractor": extractor.name,
                    "lesion_class": name,
                    "comparison": comparison,
                    "title": COMPARISONS[comparison],
                    "real_images": len(of_real),
                    "images": len(of_cohort),
                }
                rows.append(row | _scores(of_real, of_cohort, settings, seed))
        progress("feature spaces compared", number, len(extractors))
    return rows


def _classes(study: Study) -> Iterator[tuple[str, int | None]]:
    yield "all classes", None
    for index, name in enumerate(study.class_names):
        yield name, index


def _scores(real: Features, cohort: Features, settings: EvaluateLesionsSettings, seed: int) -> dict[str, Cell]:
    if min(len(real), len(cohort)) <= max(settings.neighbors, 3):
        return dict.fromkeys(("kid", "kid_se", "precision", "recall", "density", "coverage"))
    distance = kid(real, cohort, np.random.default_rng(seed), subsets=settings.kid_subsets)
    manifold = manifold_scores(real, cohort, settings.neighbors)
    return {
        "kid": distance.value,
        "kid_se": distance.standard_error,
        "precision": manifold.precision,
        "recall": manifold.recall,
        "density": manifold.density,
        "coverage": manifold.coverage,
    }
