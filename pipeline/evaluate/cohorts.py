"""The images that a lesion evaluation compares: real ones by split, synthetic ones, all in network units."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from pipeline.intensity import from_int16
from pipeline.prepared_set import ImageSet, read_image_set


@dataclass(frozen=True)
class Cohort:
    """Images with class and subject.

    Attributes:
        images: (N, C, H, W) in [-1, 1].
        classes: (N,) long.
        subjects: (N,) subject of each image; every synthetic image is its own subject.
    """

    images: Tensor
    classes: Tensor
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Cohort":
        """The images where ``chosen`` (N,) is true."""
        index = torch.from_numpy(np.flatnonzero(chosen))
        subjects = tuple(name for name, keep in zip(self.subjects, chosen, strict=True) if keep)
        return Cohort(self.images[index], self.classes[index], subjects)

    def together_with(self, other: "Cohort") -> "Cohort":
        """Both, one after the other."""
        return Cohort(
            torch.cat([self.images, other.images]),
            torch.cat([self.classes, other.classes]),
            self.subjects + other.subjects,
        )


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        class_names: index = class.
        train: what the generator was trained on.
        held_out: validation and test together: real images that the generator never saw.
        test: what classifiers are scored on.
        synthetic: the cohort.
    """

    class_names: tuple[str, ...]
    train: Cohort
    held_out: Cohort
    test: Cohort
    synthetic: Cohort


def load_study(prepared: ImageSet, cohort: Path) -> Study:
    """Read both sides of the comparison."""
    names = tuple(prepared.classes)
    table = pl.read_parquet(cohort / "cohort.parquet")
    images = np.load(cohort / "images.npy", allow_pickle=False)
    classes = torch.tensor([names.index(name) for name in table["lesion_class"]])
    synthetic = Cohort(
        torch.from_numpy(from_int16(images)), classes, tuple(f"synthetic-{number}" for number in table["image"])
    )
    test = _real(prepared, ("test",))
    return Study(names, _real(prepared, ("train",)), _real(prepared, ("validation", "test")), test, synthetic)


@dataclass(frozen=True)
class StudyFiles:
    """Where a study lies, for a process that has it not in memory.

    Attributes:
        prepared: folder of the prepared set.
        cohort: folder of the cohort.
        left_out: rows of the cohort that take no part.
    """

    prepared: Path
    cohort: Path
    left_out: tuple[int, ...]

    def load(self) -> Study:
        """The study; the last one is kept."""
        return _loaded(self)


@lru_cache(maxsize=1)
def _loaded(files: StudyFiles) -> Study:
    whole = load_study(read_image_set(files.prepared), files.cohort)
    kept = np.ones(len(whole.synthetic), np.bool_)
    kept[list(files.left_out)] = False
    return replace(whole, synthetic=whole.synthetic.part(kept))


def _real(prepared: ImageSet, splits: tuple[str, ...]) -> Cohort:
    rows = np.concatenate([prepared.rows(split) for split in splits])
    subjects = prepared.table["subject_id"].to_list()
    images = torch.from_numpy(from_int16(np.asarray(prepared.images[rows])))
    return Cohort(images, torch.from_numpy(prepared.class_indices()[rows]), tuple(subjects[row] for row in rows))
