"""Pseudo-CT of one MR: network units to HU on the prepared grid, then on the MR's own grid, as NIfTI and DICOM."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import write_json
from pipeline.geometry import Geometry, axial_geometry_for, is_sheared
from pipeline.intensity import HU_HIGH, HU_LOW
from pipeline.prepared_set import from_slices
from pipeline.resampling import resample
from pipeline.scan_io import (
    Algorithm,
    Deidentification,
    SourceSeries,
    description_of,
    uid_from,
    write_nifti,
    write_pseudo_ct_series,
)
from pipeline.translated_case import AIR

SAME_GRID, REORDERED, RESAMPLED = "as the MR", "reordered", "resampled"
"""How the slices of a series were made from the MR's grid."""

_WHOLE_VOXELS = 1e-6


def on_grid(
    stored: npt.NDArray[np.int16], prepared_affine: npt.NDArray[np.float64], target: Geometry, fill: int = AIR["HU"]
) -> npt.NDArray[np.int16]:
    """Resample display slices (K, H, W) of HU to another grid; ``fill`` beyond the prepared field of view."""
    volume = from_slices(stored).astype(np.float32)
    hu = resample(volume, prepared_affine, target, fill=fill)
    return np.clip(np.rint(hu), HU_LOW, HU_HIGH).astype(np.int16)


def write_map(
    folder: Path,
    row: Mapping[str, Any],
    words: str,
    stored: npt.NDArray[np.int16],
    prepared_affine: npt.NDArray[np.float64],
    native: Geometry,
) -> str:
    """Write a map (K, H, W) of a case, 0 or more everywhere, as NIfTI on the MR's grid; returns its relative path."""
    path = f"{row['subject_id']}/{row['subject_id']}_{row['series_id']}_{words}.nii.gz"
    write_nifti(folder / path, on_grid(stored, prepared_affine, native, fill=0), native.affine, np.int16)
    return path


def native_geometry(row: Mapping[str, Any]) -> Geometry:
    """The MR's own grid, from its catalog row."""
    return Geometry(tuple(row["shape"]), np.asarray(row["affine"], dtype=np.float64).reshape(4, 4))


def write_volume(
    folder: Path,
    row: Mapping[str, Any],
    pseudo_ct: npt.NDArray[np.int16],
    prepared_affine: npt.NDArray[np.float64],
    algorithm: Algorithm,
    *,
    dicom: bool,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, str | None]:
    """Write one case; returns ``nifti_path``, ``dicom_folder``, ``dicom_grid``, ``dicom_refusal``.

    The NIfTI lies on the MR's grid exactly. The DICOM series is axial: on the same voxels where the MR runs along the
    patient axes, resampled where it is oblique. ``<dicom_folder>.json`` holds the transform between both grids.

    Args:
        folder: output of the stage.
        row: the MR's catalog row.
        pseudo_ct: (K, H, W) HU on the prepared grid.
        prepared_affine: of the prepared canonical grid.
        algorithm: what made it.
        dicom: whether a series is wanted.
        facts: how it was made, for the JSON beside the NIfTI.
    """
    native = native_geometry(row)
    subject, series = row["subject_id"], row["series_id"]
    nifti = f"{subject}/{subject}_{series}_pseudo-ct.nii.gz"
    hu = on_grid(pseudo_ct, prepared_affine, native)
    write_nifti(folder / nifti, hu, native.affine, np.int16)
    write_json(folder / nifti.replace(".nii.gz", ".json"), _sidecar(algorithm, facts or {}))
    written: dict[str, str | None] = {
        "nifti_path": nifti,
        "dicom_folder": None,
        "dicom_grid": None,
        "dicom_refusal": None,
    }
    if not dicom:
        return written | {"dicom_refusal": "not asked for (generate.mr_to_ct.dicom is false)"}
    if is_sheared(native.affine):
        return written | {"dicom_refusal": "the MR's grid is sheared, which a DICOM series cannot express"}
    axial = axial_geometry_for(native)
    name = f"{subject}/{subject}_{series}_pseudo-ct_dicom"
    record = grid_record(native, axial)
    resampled = record["grid"] == RESAMPLED
    voxels, grid = (on_grid(pseudo_ct, prepared_affine, axial), axial) if resampled else (hu, native)
    source = _source(row, same_grid=record["grid"] == SAME_GRID)
    write_pseudo_ct_series(folder / name, voxels, grid, source, algorithm)
    write_json(folder / f"{name}.json", record)
    return written | {"dicom_folder": name, "dicom_grid": record["grid"]}


def _sidecar(algorithm: Algorithm, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as BIDS and dcm2niix name them, and our own under one name."""
    return {
        "Modality": "CT",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "SeriesDescription": description_of(algorithm),
        "DerivationDescription": algorithm.description,
        "ConversionSoftware": algorithm.name,
        "ConversionSoftwareVersion": algorithm.version,
        "Units": "HU",
        "scanloom": dict(facts),
    }


def grid_record(mr: Geometry, series: Geometry) -> dict[str, Any]:
    """How an axial series lies in its MR: both grids, and the matrix from voxels of the series to voxels of the MR.

    ``grid`` is `SAME_GRID` where slices are those of the MR, `REORDERED` where the same voxels form other slices (as of
    a sagittal MR), else `RESAMPLED`: the HU were interpolated linearly on the axial grid.
    """
    to_mr = np.linalg.inv(mr.affine) @ series.affine
    whole = np.rint(to_mr)
    exact = bool(np.abs(to_mr - whole).max() < _WHOLE_VOXELS and np.all(np.abs(whole[:3, :3]).sum(axis=0) == 1))
    stacked = exact and abs(whole[2, 2]) == 1
    return {
        "grid": SAME_GRID if stacked else REORDERED if exact else RESAMPLED,
        "series_voxel_to_mr_voxel": (whole if exact else to_mr).tolist(),
        "mr": {"shape": list(mr.shape), "voxel_to_ras_mm": mr.affine.tolist()},
        "series": {"shape": list(series.shape), "voxel_to_ras_mm": series.affine.tolist()},
        "interpolation": "none" if exact else "linear",
    }


def _source(row: Mapping[str, Any], *, same_grid: bool) -> SourceSeries:
    """The MR's remapped identity; an MR that came as NIfTI gets UIDs of its own, shared by its subject's outputs."""
    subject, series = row["subject_id"], row["series_id"]
    slices = max(row["shape"])
    return SourceSeries(
        patient_id=subject,
        study_uid=row["study_uid"] or uid_from("study", subject),
        series_uid=row["series_uid"] or uid_from("series", series),
        frame_of_reference_uid=row["frame_of_reference_uid"] or uid_from("frame of reference", subject),
        sop_instance_uids=list(dict.fromkeys(row["sop_instance_uids"] or ()))  # an enhanced file has one for all slices
        or [uid_from("image", series, str(k)) for k in range(slices)],
        patient_position=row["patient_position"] or "HFS",
        body_part=row["body_part"] or "",
        same_grid=same_grid,
        study_date=row["study_date"] or "",
        deidentification=Deidentification(
            dates_shifted=row["study_date"] is not None, defaced="DEFACED" in (row["flags"] or ())
        ),
    )
