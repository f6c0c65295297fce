"""What the released cohort gives away beside copies: membership inference, authenticity, distance ratios."""

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.features import Extractor, Features, FeatureScale
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.copy_search import nearest_copies
from pipeline.metrics.membership import authentic, likeness, membership_auc
from pipeline.metrics.memorization import feature_distance_ratio
from pipeline.results import Cell, Column, ResultTable
from pipeline.settings import EvaluateLesionsSettings

Row = dict[str, Cell]


def privacy_rows(study: Study, extractor: Extractor, settings: EvaluateLesionsSettings, seed: int) -> list[Row]:
    """One row a measure; none where a side has too few images.

    Args:
        study: synthetic images that were flagged as copies are left out already.
        extractor: must not have been trained on the training images, which would tell them apart by itself.
        settings: number of resamples.
        seed: of the resamples.
    """
    if min(len(study.train), len(study.held_out), len(study.synthetic)) < 2:
        return []
    scale = FeatureScale.fit(extractor(study.train.images))
    train, held_out, synthetic = (
        scale.bounded(extractor(cohort.images)) for cohort in (study.train, study.held_out, study.synthetic)
    )
    pixels = [_pixel_likeness(cohort, study.synthetic) for cohort in (study.train, study.held_out)]
    spaces: dict[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]] = {
        "correlation of pixels": (pixels[0], pixels[1]),
        f"distance in {extractor.name}": (likeness(train, synthetic), likeness(held_out, synthetic)),
    }
    rows: list[Row] = []
    for space, (members, others) in spaces.items():
        row: Row = {"measure": "membership inference, AUC", "space": space, "expected": 0.5}
        try:
            found = membership_auc(
                members,
                others,
                study.train.subjects,
                study.held_out.subjects,
                np.random.default_rng(seed),
                resamples=settings.bootstrap,
            )
        except InputError:  # too few subjects for resamples with both sides
            continue
        rows.append(row | _cells(found))
    return rows + _distance_rows(train, held_out, synthetic, extractor.name)


def _pixel_likeness(cohort: Cohort, synthetic: Cohort) -> npt.NDArray[np.float32]:
    """Highest correlation with any synthetic image over mirrors and shifts."""
    return nearest_copies(synthetic.images.mean(1).numpy(), cohort.images.mean(1).numpy()).correlation


def _cells(interval: Interval) -> Row:
    return {"value": interval.value, "value_low": interval.low, "value_high": interval.high}


def _distance_rows(train: Features, held_out: Features, synthetic: Features, name: str) -> list[Row]:
    rows: list[Row] = [
        {
            "measure": "authentic share",
            "space": f"distance in {name}",
            "value": float(authentic(train, synthetic).mean()),
            "expected": float(authentic(train, held_out).mean()),
        }
    ]
    try:
        ratio = feature_distance_ratio(train, held_out, synthetic)
    except InputError:  # held-out images lie on training images: the leakage audit says so
        return rows
    words = {"median": 0.5, "1st percentile": 0.01}
    own = feature_distance_ratio(train, held_out, held_out)
    for title, share in words.items():
        rows.append(
            {
                "measure": f"distance ratio to nearest training image, {title}",
                "space": f"distance in {name}",
                "value": float(np.quantile(ratio, share)),
                "expected": float(np.quantile(own, share)),
            }
        )
    return rows


def privacy_table(rows: list[Row]) -> ResultTable:
    """Measures beside what images that copy nothing would give."""
    return ResultTable(
        key="privacy",
        title="Privacy",
        caption=(
            "Of the released synthetic images. Membership inference asks whether training images can be told from "
            "held-out ones by their likeness to the cohort; intervals by bootstrap over subjects."
        ),
        columns=(
            Column(key="measure", title="measure"),
            Column(key="space", title="likeness by"),
            Column(key="value", title="value", low_key="value_low", high_key="value_high"),
            Column(
                key="expected",
                title="expected",
                definition="0.5, or the same measure of held-out real images in place of synthetic ones",
            ),
        ),
        rows=tuple(rows),
    )


def privacy_warnings(rows: list[Row]) -> list[str]:
    """Sentences on membership inference whose interval lies above 0.5."""
    return [
        f"Training images can be told from held-out ones by {row['space']}: AUC {row['value']:.3f} "
        f"[{row['value_low']:.3f}, {row['value_high']:.3f}]. Weights and cohort give away who was trained on."
        for row in rows
        if isinstance(low := row.get("value_low"), float) and low > 0.5
    ]
