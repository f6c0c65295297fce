"""The catalog: what ingest found, one row a series or image, one row a lesion, one row a refusal.

A catalog folder holds ``series.parquet``, ``lesions.parquet``, ``quarantine.parquet`` and the de-identified voxels:
volumes as NIfTI under ``volumes/``, lesion masks under ``masks/``, images without geometry stacked by size under
``stacks/``. No column names a patient, an original UID or a source path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandera.polars as pa
import polars as pl

SERIES_SCHEMA: dict[str, Any] = {
    "series_id": pl.String,  # pseudonym
    "subject_id": pl.String,  # pseudonym, or near-duplicate cluster where the source has no subjects
    "subject_source": pl.String,  # patient_id | study | bids | file | case | table | near_duplicates
    "kind": pl.String,  # volume | image
    "source": pl.String,  # dicom | nifti | metaimage | nrrd | class_folders | medmnist_npz | slice_pairs
    "modality": pl.String,  # MR | CT | null for images of unknown origin
    "body_part": pl.String,  # DICOM Body Part Examined, upper case, or null
    "sequence": pl.String,  # T1, T2 ... or null
    "volume_label": pl.String,  # which volume of a series of several, e.g. "echo 2" or "b 1000; time 3", or null
    "study_date": pl.String,  # YYYYMMDD, shifted; null where dates are dropped
    "flags": pl.List(pl.String),  # what was done or looked odd, defined terms, e.g. TILT_CORRECTED
    "tilt_degrees": pl.Float64,  # gantry tilt that was corrected, or null
    "unit": pl.String,  # HU | signal | grey
    "shape": pl.List(
        pl.Int64
    ),  # voxels along (i, j, k) for volumes, (rows, columns) or (rows, columns, channels) for images
    "spacing_mm": pl.List(pl.Float64),  # null without geometry
    "affine": pl.List(pl.Float64),  # 16 numbers, voxel index -> RAS+ mm; null without geometry
    "study_uid": pl.String,  # remapped; null where the source had none
    "series_uid": pl.String,
    "frame_of_reference_uid": pl.String,
    "sop_instance_uids": pl.List(pl.String),  # remapped, in the order of k; null where the source had none
    "patient_position": pl.String,  # e.g. HFS, or null
    "path": pl.String,  # relative to the catalog folder: .nii, or .npy stack
    "stack_index": pl.Int64,  # row in the stack for images, -1 for volumes
    "slice_index": pl.Int64,  # slice number inside its case for slice_pairs, -1 otherwise
    "pair_key": pl.String,  # equal for an MR and a CT image that are registered (slice_pairs), else null
    "published_split": pl.String,  # train | validation | test where the source comes with one, else null
    "content_sha256": pl.String,  # of voxels and geometry
}

LESION_SCHEMA: dict[str, Any] = {
    "lesion_id": pl.String,
    "subject_id": pl.String,
    "series_id": pl.String,
    "lesion_class": pl.String,
    "mask_path": pl.String,  # relative to the catalog folder; null where the whole image is the lesion example
    "mask_value": pl.Int64,  # voxels equal to it belong to this lesion; -1 without a mask
    "volume_mm3": pl.Float64,  # null without geometry
}

QUARANTINE_SCHEMA: dict[str, Any] = {
    "path_hash": pl.String,  # keyed hash of the source path; `identity/` alone can resolve it
    "files": pl.Int64,  # files that the row stands for
    "reason": pl.String,
    "found": pl.String,
    "advice": pl.String,
}

LOOK_ALIKES_FILE = "look_alikes.parquet"
"""Table of a catalog: one row a pair of series of different subjects that show the same."""

_NULLABLE = frozenset(
    {
        "modality", "body_part", "sequence", "volume_label", "study_date", "tilt_degrees", "spacing_mm", "affine",
        "study_uid", "series_uid", "frame_of_reference_uid", "sop_instance_uids", "patient_position", "pair_key",
        "published_split", "mask_path", "volume_mm3",
    }
)  # fmt: skip
_ALLOWED = {
    "kind": ["volume", "image"],
    "source": ["dicom", "nifti", "metaimage", "nrrd", "class_folders", "medmnist_npz", "slice_pairs"],
    "unit": ["HU", "signal", "grey"],
}
_TABLES = {"series": SERIES_SCHEMA, "lesions": LESION_SCHEMA, "quarantine": QUARANTINE_SCHEMA}


@dataclass(frozen=True)
class Catalog:
    """An opened catalog.

    Attributes:
        folder: where it lies.
        series, lesions, quarantine: tables of the schemas above.
    """

    folder: Path
    series: pl.DataFrame
    lesions: pl.DataFrame
    quarantine: pl.DataFrame

    def without_rows(self) -> "Catalog":
        """The same files with empty tables: enough to read voxels of known rows, and small enough to send around."""
        return Catalog(self.folder, self.series.clear(), self.lesions.clear(), self.quarantine.clear())

    def volume(self, row: Mapping[str, Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Voxels (i, j, k) and affine (voxel index -> RAS+ mm) of a volume row."""
        return _read_volume(self.folder / row["path"])

    def mask(self, row: Mapping[str, Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Lesion mask (i, j, k) and affine of a lesion row that has one."""
        return _read_volume(self.folder / row["mask_path"])

    def image(self, row: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Pixels of an image row, (rows, columns) or (rows, columns, channels)."""
        pixels: npt.NDArray[Any] = np.load(self.folder / row["path"], mmap_mode="r", allow_pickle=False)[
            row["stack_index"]
        ]
        return pixels


def write_catalog(
    folder: Path, series: list[dict[str, Any]], lesions: list[dict[str, Any]], quarantine: list[dict[str, Any]]
) -> Catalog:
    """Validate the rows with pandera and write the three tables, sorted so that equal input gives equal bytes."""
    rows = {"series": series, "lesions": lesions, "quarantine": quarantine}
    order = {"series": "series_id", "lesions": "lesion_id", "quarantine": "path_hash"}
    tables = {}
    for name, schema in _TABLES.items():
        table = pl.DataFrame(rows[name], schema=schema, strict=False).sort(order[name])
        tables[name] = _checks(schema).validate(table)
        tables[name].write_parquet(folder / f"{name}.parquet")
    return Catalog(folder, **tables)


def read_catalog(folder: Path) -> Catalog:
    """Open a catalog folder."""
    return Catalog(folder, **{name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES})


def read_quarantine(path: Path) -> list[dict[str, Any]]:
    """Rows of one quarantine table, `QUARANTINE_SCHEMA`; an ingest that refused everything leaves nothing else."""
    return pl.read_parquet(path).to_dicts()


def _read_volume(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)


def _checks(schema: Mapping[str, Any]) -> pa.DataFrameSchema:
    columns = {
        name: pa.Column(
            kind,
            nullable=name in _NULLABLE,
            checks=[pa.Check.isin(_ALLOWED[name])] if name in _ALLOWED else [],
        )
        for name, kind in schema.items()
    }
    return pa.DataFrameSchema(columns, strict=True)
