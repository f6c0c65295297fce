"""What the formats of whole scans are given: volumes with the labels of their lesions, real and synthetic.

Real volumes come from the catalog with the split of their subject. Synthetic ones are pseudo-CT of a translation, and
hosts with synthetic lesions, behind the release gate. Names are pseudonyms; a synthetic volume says so in its name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.geometry import Geometry

_GRID_TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class LesionMask:
    """One lesion of a volume: voxels of the mask that equal ``value``."""

    path: Path
    value: int
    lesion_class: str


@dataclass(frozen=True)
class ScanCase:
    """One volume to be written.

    Attributes:
        origin: real or synthetic.
        subject_id, series_id: pseudonyms; of a synthetic volume those of the scan it was made from.
        split: train, validation or test.
        modality: MR or CT.
        sequence: MR sequence, or None.
        path: NIfTI file with its voxels.
        lesions: masks on its grid.
        model_sha256: weights that made it, None for a real one.
        condition: what it was made from, None for a real one.
    """

    origin: Literal["real", "synthetic"]
    subject_id: str
    series_id: str
    split: str
    modality: str
    sequence: str | None
    path: Path
    lesions: tuple[LesionMask, ...] = ()
    model_sha256: str | None = None
    condition: str | None = None

    @property
    def name(self) -> str:
        """Letters and digits alone, parted by one hyphen: a file name in every format."""
        words = (self.origin, plain(self.subject_id), plain(self.series_id))
        return "-".join(words)

    def volume(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Voxels (i, j, k) and affine, voxel index → RAS+ mm."""
        return _read(self.path)

    def label_map(self, classes: Sequence[str]) -> tuple[npt.NDArray[np.uint8], int]:
        """Labels (i, j, k): 0 background, 1 + the index of a class; and how many voxels lie in several lesions.

        Where lesions overlap, the later one is kept.

        Raises:
            InputError: a mask that is not on the grid of the volume.
        """
        voxels, affine = self.volume()
        labels = np.zeros(voxels.shape, np.uint8)
        shared = 0
        for lesion in self.lesions:
            mask, mask_affine = _read(lesion.path)
            if not Geometry(mask.shape, mask_affine).matches(Geometry(voxels.shape, affine), _GRID_TOLERANCE_MM):
                raise InputError(
                    "A label map lies on the grid of its image.",
                    found=f"mask of {mask.shape} voxels, image of {voxels.shape}",
                    allowed="equal shapes and affines",
                    change="Ingest the scans again.",
                )
            inside = mask == lesion.value
            shared += int((labels[inside] > 0).sum())
            labels[inside] = 1 + classes.index(lesion.lesion_class)
        return labels, shared


def plain(text: str) -> str:
    """Letters and digits of a pseudonym."""
    return re.sub("[^A-Za-z0-9]", "", text)


def real_cases(catalog: Catalog, splits: Mapping[str, str], modalities: Iterable[str]) -> list[ScanCase]:
    """Volumes of the catalog in these modalities, in order, with the masks drawn on them."""
    masks: dict[str, list[LesionMask]] = {}
    for row in catalog.lesions.filter(pl.col("mask_path").is_not_null()).sort("lesion_id").to_dicts():
        mask = LesionMask(catalog.folder / row["mask_path"], row["mask_value"], row["lesion_class"])
        masks.setdefault(row["series_id"], []).append(mask)
    chosen = catalog.series.filter((pl.col("kind") == "volume") & pl.col("modality").is_in(list(modalities)))
    return [
        ScanCase(
            "real",
            row["subject_id"],
            row["series_id"],
            splits[row["subject_id"]],
            row["modality"],
            row["sequence"],
            catalog.folder / row["path"],
            tuple(masks.get(row["series_id"], ())),
        )
        for row in chosen.sort("subject_id", "series_id").to_dicts()
    ]


def pseudo_ct_cases(translation: Path, model_sha256: str) -> list[ScanCase]:
    """Pseudo-CT of a translation that have geometry."""
    table = pl.read_parquet(translation / "cases.parquet").filter(pl.col("nifti_path").is_not_null())
    return [
        ScanCase(
            "synthetic",
            row["subject_id"],
            row["series_id"],
            row["split"],
            "CT",
            None,
            translation / row["nifti_path"],
            model_sha256=model_sha256,
            condition=f"MR {row['series_id']}",
        )
        for row in table.sort("subject_id", "series_id").to_dicts()
    ]


def placed_cases(placement: Path, splits: Mapping[str, str], catalog: Catalog) -> list[ScanCase]:
    """Hosts with synthetic lesions; those of subjects outside of the training split are left out.

    Args:
        placement: output of place_lesions.
        splits: of the subjects of the workspace; a host from elsewhere is in none of them, and serves for training.
        catalog: tells the sequence of hosts of the workspace.
    """
    sequences = dict(catalog.series.select("series_id", "sequence").iter_rows())
    modalities = dict(catalog.series.select("series_id", "modality").iter_rows())
    cases = []
    for rows in pl.read_parquet(placement / "placed.parquet").partition_by("series_id", maintain_order=True):
        first = rows.row(0, named=True)
        told = read_json((placement / first["image_path"]).with_suffix("").with_suffix(".json"))
        if splits.get(first["subject_id"], "train") != "train":
            continue
        cases.append(
            ScanCase(
                "synthetic",
                first["subject_id"],
                first["series_id"],
                "train",
                modalities.get(first["series_id"]) or told["Modality"],
                sequences.get(first["series_id"]),
                placement / first["image_path"],
                tuple(
                    LesionMask(placement / row["mask_path"], row["mask_value"], row["lesion_class"])
                    for row in rows.iter_rows(named=True)
                ),
                model_sha256=" ".join(sorted(set(rows["model_sha256"].drop_nulls()))) or None,
                condition="; ".join(f"{row['lesion_class']}, seed {row['seed']}" for row in rows.iter_rows(named=True)),
            )
        )
    return cases


def _read(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
