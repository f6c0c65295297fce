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
    image = nib.Nifti1Image(_cast(voxels, np.dtype(dtype)), None)
    image.header.set_xyzt_units("mm")
    image.set_sform(geometry.affine, code=1)
    image.set_qform(geometry.affine, code=1)
    qform: Affine = image.header.get_qform()
    if geometry.distance_mm(Geometry(voxels.shape, qform)) > FORM_TOLERANCE_VOXELS * min(geometry.spacing_mm):
        image.header["qform_code"] = 0
    content = image.to_bytes()
    write_bytes(path, _deterministic_gzip(content) if path.name.lower().endswith(".gz") else content)


def _cast(voxels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
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


def _deterministic_gzip(content: bytes) -> bytes:
    """Gzip without file name and time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        stream.write(content)
    return buffer.getvalue()
