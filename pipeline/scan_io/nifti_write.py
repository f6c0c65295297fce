"""Write NIfTI-1 files with a fresh header, which carries no text."""

import gzip
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pipeline.errors import InputError
from pipeline.files import write_bytes
from pipeline.geometry import Affine, Geometry
from pipeline.scan_io.nifti import is_nifti
from pipeline.scan_io.nifti_header import FORM_TOLERANCE_VOXELS

_GZIP_LEVEL = 4


def write_nifti(path: Path, voxels: NDArray[Any], affine: ArrayLike, dtype: DTypeLike) -> None:
    """Write a volume with a fresh header: sform and qform with code 1 (scanner), mm; equal inputs give equal bytes.

    A sheared affine, which no qform can hold, is stored in the sform only.

    Args:
        path: ends in .nii or .nii.gz; written atomically.
        voxels: (i, j, k).
        affine: voxel index → RAS+ mm.
        dtype: how voxels are stored, without scaling.

    Raises:
        InputError: if the name ends otherwise, or ``dtype`` is an integer type that does not hold the values exactly.
    """
    if not is_nifti(path):
        raise InputError(
            "A NIfTI file must be named as one", found=path.name, allowed=".nii or .nii.gz", change="rename the output"
        )
    geometry = Geometry(voxels.shape, np.asarray(affine, dtype=np.float64))
    stored = np.ascontiguousarray(_cast(voxels, np.dtype(dtype)).T)  # a NIfTI file counts i first
    parts = (_header(geometry, stored.dtype), stored.reshape(-1).view(np.uint8).data)
    write_bytes(path, *((_deterministic_gzip(*parts),) if path.name.lower().endswith(".gz") else parts))


def _header(geometry: Geometry, dtype: np.dtype[Any]) -> bytes:
    """Header of a single file up to its voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(geometry.shape)
    header.set_xyzt_units("mm")
    header.set_sform(geometry.affine, code=1)
    header.set_qform(geometry.affine, code=1)
    qform: Affine = header.get_qform()
    if geometry.distance_mm(Geometry(geometry.shape, qform)) > FORM_TOLERANCE_VOXELS * min(geometry.spacing_mm):
        header["qform_code"] = 0
    if np.issubdtype(dtype, np.integer):
        header.set_slope_inter(1.0, 0.0)
    buffer = io.BytesIO()
    header.write_to(buffer)
    return buffer.getvalue().ljust(int(header.get_data_offset()), b"\0")


def _cast(voxels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if voxels.dtype == dtype:
        return voxels
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        whole = np.isfinite(voxels).all() and np.array_equal(voxels, np.rint(voxels))
        if not whole or voxels.min() < limits.min or voxels.max() > limits.max:
            raise InputError(
                "An integer file must hold the voxels exactly",
                found=f"{voxels.dtype} values from {voxels.min()} to {voxels.max()}",
                allowed=f"whole numbers in [{limits.min}, {limits.max}] for {dtype}",
                change="round first, or choose another dtype",
            )
    return voxels.astype(dtype)


def _deterministic_gzip(*parts: bytes | memoryview) -> bytes:
    """Gzip without file name and time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        for part in parts:
            stream.write(part)
    return buffer.getvalue()
