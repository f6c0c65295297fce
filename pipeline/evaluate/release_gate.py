"""Release gate: synthetic images that copy a training image are flagged; too many flags block the cohort."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.evaluate.cohorts import Study
from pipeline.files import write_json
from pipeline.metrics.memorization import Memorization, UncalibratedError, find_memorized

_FLAGGED_SCHEMA = {
    "image": pl.Int64,
    "lesion_class": pl.String,
    "correlation": pl.Float64,
    "nearest_image": pl.Int64,
}


@dataclass(frozen=True)
class Gate:
    """The verdict on a cohort.

    Attributes:
        blocked: whether the cohort must not be exported.
        flags: (N,) which synthetic images copy a training image.
        reason: why, in one sentence.
        search: numbers behind it, None where it could not be calibrated.
    """

    blocked: bool
    flags: npt.NDArray[np.bool_]
    reason: str
    search: Memorization | None


def check_release(study: Study, seed: int) -> Gate:
    """Search the cohort for copies of training images, calibrated on held-out real images."""
    count = len(study.synthetic)
    train, held_out, synthetic = (
        side.images.mean(1).numpy() for side in (study.train, study.held_out, study.synthetic)
    )
    try:
        search = find_memorized(train, held_out, synthetic, np.random.default_rng(seed), study.held_out.subjects)
    except UncalibratedError as error:
        return Gate(True, np.zeros(count, np.bool_), f"not calibrated: {error.found}, {error.allowed}", None)
    flagged = int(search.flags.sum())
    reason = (
        f"{flagged} of {count} images exceed a correlation of {search.threshold:.3f} with a training image; "
        f"chance explains up to {search.allowed_flags}"
    )
    return Gate(search.verdict == "blocked", search.flags, reason, search)


def write_gate(folder: Path, gate: Gate, study: Study, train_images: npt.NDArray[np.int64]) -> None:
    """Write ``gate.json`` and ``flagged.parquet``.

    Args:
        folder: output of the stage.
        gate: the verdict.
        study: names the classes.
        train_images: row of every training image in the prepared set.
    """
    search = gate.search
    facts = {
        "blocked": gate.blocked,
        "flags": int(gate.flags.sum()),
        "reason": gate.reason,
        "threshold": None if search is None else search.threshold,
        "rate": None if search is None else search.calibrated_rate,
        "allowed_flags": None if search is None else search.allowed_flags,
        "held_out": None if search is None else search.held_out,
        "identical_held_out": None if search is None else search.identical,
    }
    write_json(folder / "gate.json", facts)
    flagged = [] if search is None else np.flatnonzero(gate.flags).tolist()
    rows = [_flagged(image, search, study, train_images) for image in flagged if search is not None]
    pl.DataFrame(rows, schema=_FLAGGED_SCHEMA).write_parquet(folder / "flagged.parquet")


def _flagged(
    image: int, search: Memorization, study: Study, train_images: npt.NDArray[np.int64]
) -> dict[str, int | float | str]:
    return {
        "image": image,
        "lesion_class": study.class_names[int(study.synthetic.classes[image])],
        "correlation": float(search.copies.correlation[image]),
        "nearest_image": int(train_images[search.copies.nearest[image]]),
    }
