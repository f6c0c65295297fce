"""What an export format is given: the images of an augmented dataset and where each one comes from.

Real images keep the split of their subject. Synthetic images go to the training split only, so that validation and
test stay real. Images that memorization flagged are left out; while the release gate is closed, all of them are.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import JsonValue

from pipeline.files import read_json
from pipeline.lesion_attributes import ATTRIBUTE_PREFIX
from pipeline.prepared_set import IMAGES_ARRAY, ImageSet, read_image_set

SYNTHETIC_SPLIT = "train"
"""The only split that synthetic images enter."""


@dataclass(frozen=True)
class ExportImage:
    """One image of the dataset.

    Attributes:
        origin: real or synthetic.
        split: train, validation or test.
        lesion_class: its class.
        source_row: row in the prepared set or in the cohort.
        stored: int16 (H, W), or (H, W, C) of several channels; unit intensity × 16384.
        subject_id, lesion_id: pseudonyms of a real image, else None.
        seed: seed of a synthetic image, else None.
        truncation: scale of a synthetic image's latent, else None.
        attributes: what is known of it, or was asked for, beside its class, as JSON; None where nothing is.
        model_sha256: hash of the weights that made a synthetic image, else None.
    """

    origin: Literal["real", "synthetic"]
    split: str
    lesion_class: str
    source_row: int
    stored: npt.NDArray[np.int16]
    subject_id: str | None = None
    lesion_id: str | None = None
    seed: int | None = None
    truncation: float | None = None
    attributes: str | None = None
    model_sha256: str | None = None


@dataclass(frozen=True)
class Release:
    """What the release gate decided about the synthetic images.

    Attributes:
        released: synthetic images may leave.
        reason: one sentence.
        flagged: rows of the cohort that were flagged as near-copies of training images.
        gate: content of ``gate.json``.
        override: why a closed gate was passed by, in the words of whoever did; None where it was not.
    """

    released: bool
    reason: str
    flagged: frozenset[int]
    gate: Mapping[str, JsonValue]
    override: str | None = None


@dataclass(frozen=True)
class AugmentedDataset:
    """Everything that an export format writes.

    Attributes:
        prepared: the real images.
        cohort: table of the synthetic images (image, lesion_class, seed, truncation).
        cohort_images: int16 (N, 1, H, W).
        recipe: content of ``cohort.json``: classes, recipe, model_sha256.
        release: the gate's decision.
    """

    prepared: ImageSet
    cohort: pl.DataFrame
    cohort_images: npt.NDArray[np.int16]
    recipe: Mapping[str, Any]
    release: Release

    @property
    def model_sha256(self) -> str:
        """Hash of the weights that made the synthetic images; of an ensemble a hash of their hashes."""
        return str(self.recipe["model_sha256"])

    def __iter__(self) -> Iterator[ExportImage]:
        """Real images in the order of the prepared set, then the released synthetic ones."""
        yield from self._real()
        if self.release.released:
            yield from self._synthetic()

    def __len__(self) -> int:
        """Number of images that iterating yields."""
        return self.prepared.table.height + self.synthetic_count

    @property
    def synthetic_count(self) -> int:
        """Number of synthetic images that are released."""
        return self.cohort.height - len(self.release.flagged) if self.release.released else 0

    def _real(self) -> Iterator[ExportImage]:
        for row in self.prepared.table.iter_rows(named=True):
            yield ExportImage(
                "real",
                row["split"],
                row["lesion_class"],
                row["image"],
                _channels_last(self.prepared.images[row["image"]]),
                subject_id=row["subject_id"],
                lesion_id=row["lesion_id"],
                attributes=_attributes(row),
            )

    def _synthetic(self) -> Iterator[ExportImage]:
        for row in self.cohort.iter_rows(named=True):
            if row["image"] in self.release.flagged:
                continue
            yield ExportImage(
                "synthetic",
                SYNTHETIC_SPLIT,
                row["lesion_class"],
                row["image"],
                _channels_last(self.cohort_images[row["image"]]),
                seed=int(row["seed"]),
                truncation=float(row["truncation"]),
                attributes=_attributes(row),
                model_sha256=row.get("model_sha256") or self.model_sha256,
            )


def _attributes(row: Mapping[str, Any]) -> str | None:
    """The attribute columns of a table row that have a value."""
    known = {
        name.removeprefix(ATTRIBUTE_PREFIX): value
        for name, value in sorted(row.items())
        if name.startswith(ATTRIBUTE_PREFIX) and value is not None
    }
    return json.dumps(known) if known else None


def read_dataset(prepared: Path, cohort: Path, evaluation: Path, override: str | None = None) -> AugmentedDataset:
    """Open the folders of prepare_lesions, synthesize_lesions and evaluate_lesions; see `read_release`."""
    return AugmentedDataset(
        read_image_set(prepared),
        pl.read_parquet(cohort / "cohort.parquet"),
        np.load(cohort / IMAGES_ARRAY, mmap_mode="r", allow_pickle=False),
        read_json(cohort / "cohort.json"),
        read_release(evaluation, override),
    )


def read_release(evaluation: Path, override: str | None = None) -> Release:
    """The gate's decision, from ``gate.json`` and ``flagged.parquet`` of evaluate_lesions.

    Args:
        evaluation: output of evaluate_lesions.
        override: reason for releasing a blocked cohort, which goes onto the data card; flagged images stay out.
    """
    gate = read_json(evaluation / "gate.json")
    flagged = frozenset(int(image) for image in pl.read_parquet(evaluation / "flagged.parquet")["image"])
    state, consequence = (
        ("closed", "No synthetic image is exported") if gate["blocked"] else ("open", "Flagged images are left out")
    )
    reason = f"The release gate is {state}: {gate['reason']}. {consequence}."
    if gate["blocked"] and override is not None:
        consequence = "Flagged images are left out, the others are exported"
        reason = f"OVERRIDDEN. The release gate is closed: {gate['reason']}. {consequence}."
        return Release(True, reason, flagged, gate, override)
    return Release(not gate["blocked"], reason, flagged, gate)


def _channels_last(image: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """(C, H, W) → (H, W) of one channel, else (H, W, C)."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
