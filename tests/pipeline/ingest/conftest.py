"""Small inputs: DICOM series, NIfTI files, images; and a way to ingest them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipeline.catalog import Catalog, read_catalog
from pipeline.ingest.stage import ingest
from pipeline.records import StageRecord
from pipeline.scan_io import SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition
from pipeline.settings import RunSettings
from pipeline.settings_loading import validate
from pipeline.workspace import Workspace

AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])
"""Axial, in the order in which DICOM stores voxels: i to the left, j to the back, k upward."""


@dataclass
class Inputs:
    """Writes inputs below ``root``."""

    root: Path
    affine = AFFINE

    def voxels(self, seed: int = 0, shape: tuple[int, int, int] = (12, 10, 4)) -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)

    def identity(self, patient: str = "PATIENT-7", name: str = "series") -> SeriesIdentity:
        return SeriesIdentity(patient, uid_from(patient, "study"), uid_from(patient, name), uid_from(patient, "frame"))

    def dicom(
        self, folder: str, seed: int = 0, modality: str = "CT", identity: SeriesIdentity | None = None, **fields: Any
    ) -> tuple[list[Path], np.ndarray[Any, Any]]:
        voxels = self.voxels(seed) if modality == "CT" else np.abs(self.voxels(seed))
        who = replace(identity or self.identity(name=folder), **fields)
        paths = write_dicom_series(
            self.root / folder, voxels, AFFINE, modality, who, Acquisition("AX T1 of someone", body_part="HEAD")
        )
        return paths, voxels

    def nifti(self, name: str, voxels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] = AFFINE) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(voxels, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, path)
        return path

    def image(self, name: str, pixels: np.ndarray[Any, Any] | None = None, seed: int = 0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = np.random.default_rng(seed).integers(0, 256, (40, 36)).astype(np.uint8)
        Image.fromarray(drawn if pixels is None else pixels).save(path)
        return path

    def text(self, name: str, content: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path


@dataclass
class Ingested:
    """What an ingest made."""

    workspace: Workspace
    record: StageRecord
    catalog: Catalog

    def reasons(self) -> list[str]:
        return sorted(self.catalog.quarantine["reason"])


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    (tmp_path / "input").mkdir()
    return Inputs(tmp_path / "input")


@pytest.fixture
def run_ingest(tmp_path: Path, inputs: Inputs):
    def run(source: Path | None = None, workspace: str = "workspace", **ingest_settings: Any) -> Ingested:
        opened = Workspace.open(tmp_path / workspace, bytes(range(32)))
        settings = validate({"ingest": ingest_settings}, "test") if ingest_settings else RunSettings()
        record = ingest(opened, settings, source or inputs.root)
        return Ingested(opened, record, read_catalog(record.path(opened.root)))

    return run
