"""Catalogs made by hand: volumes with any grid, lesion masks, pictures; as ingest would leave them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.catalog import Catalog, write_catalog


class CatalogMaker:
    """Collects rows and files of a catalog in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.series: list[dict[str, Any]] = []
        self.lesions: list[dict[str, Any]] = []
        for name in ("volumes", "masks", "stacks"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def volume(self, subject: str, modality: str, voxels: np.ndarray, affine: np.ndarray, **changes: Any) -> str:
        series_id = changes.pop("series_id", f"{subject}-{modality.lower()}-{len(self.series):03d}")
        path = f"volumes/{series_id}.nii"
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), self.folder / path)
        self.series.append(
            self._row(series_id, subject, path)
            | {
                "kind": "volume",
                "source": "nifti",
                "modality": modality,
                "unit": "HU" if modality == "CT" else "signal",
                "shape": list(voxels.shape),
                "spacing_mm": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
                "affine": np.asarray(affine, float).ravel().tolist(),
            }
            | changes
        )
        return series_id

    def lesion(
        self, series_id: str, lesion_class: str, mask: np.ndarray | None, affine: np.ndarray | None, value: int = 1
    ) -> None:
        series = next(row for row in self.series if row["series_id"] == series_id)
        path = None
        if mask is not None:
            path = f"masks/{series_id}.nii"
            nib.save(nib.Nifti1Image(mask.astype(np.int16), affine), self.folder / path)
        self.lesions.append(
            {
                "lesion_id": f"lesion-{len(self.lesions):03d}",
                "subject_id": series["subject_id"],
                "series_id": series_id,
                "lesion_class": lesion_class,
                "mask_path": path,
                "mask_value": value if mask is not None else -1,
                "volume_mm3": None,
            }
        )

    def pictures(self, pixels: np.ndarray, rows: Sequence[dict[str, Any]], source: str) -> list[str]:
        """One row a picture; ``pixels`` (N, rows, columns[, channels]); ``rows`` hold what differs."""
        stack = f"stacks/{len(self.series):03d}.npy"
        np.save(self.folder / stack, pixels)
        names = []
        for number, changes in enumerate(rows):
            names.append(f"picture-{len(self.series):03d}")
            self.series.append(
                self._row(names[-1], changes["subject_id"], stack)
                | {"kind": "image", "source": source, "unit": "grey", "shape": list(pixels.shape[1:])}
                | {"stack_index": number}
                | changes
            )
        return names

    def write(self) -> Catalog:
        return write_catalog(self.folder, self.series, self.lesions, [])

    @staticmethod
    def _row(series_id: str, subject: str, path: str) -> dict[str, Any]:
        empty = (
            "modality",
            "body_part",
            "sequence",
            "volume_label",
            "study_date",
            "tilt_degrees",
            "spacing_mm",
            "affine",
        )
        empty += ("study_uid", "series_uid", "frame_of_reference_uid", "sop_instance_uids", "patient_position")
        empty += ("pair_key", "published_split")
        return dict.fromkeys(empty) | {
            "flags": [],
            "series_id": series_id,
            "subject_id": subject,
            "subject_source": "patient_id",
            "path": path,
            "stack_index": -1,
            "slice_index": -1,
            "content_sha256": series_id,
        }


@pytest.fixture
def maker(tmp_path: Path) -> CatalogMaker:
    return CatalogMaker(tmp_path / "catalog")
