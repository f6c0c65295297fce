"""Read and write NIfTI-1/2 files with one strict header policy.

The sform gives the affine if its code is set, else the qform; a file with neither has no orientation and is refused. If
both are set they have to agree to 0.1 voxel. Units other than mm are converted. Modality and body part of a file are
told by the sidecar JSON beside it (fields as dcm2niix and BIDS write them), else by the BIDS suffix of its name.
"""

import gzip
import io
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pipeline.errors import InputError, QuarantineError
from pipeline.files import write_bytes
from pipeline.geometry import Affine, Geometry
from pipeline.scan_io.scan import Scan, ScanFacts, compact_integers, hounsfield, sequence_from_text

FORM_TOLERANCE_VOXELS = 0.1
"""Largest distance, in voxels, between where sform and qform put the same voxel."""

_SIDECAR_LIMIT_BYTES = 1 << 20
_MR_SUFFIXES = frozenset({"T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "inplaneT2", "T1map", "T2map"})
_CT_SUFFIXES = frozenset({"ct", "CT"})
_UNITS_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_GZIP_LEVEL = 4
_CHUNK_BYTES = 1 << 20


def is_nifti(path: Path) -> bool:
    """Tell whether a file name ends in .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path) -> Scan:
    """Read a NIfTI file of one scalar volume.

    Raises:
        QuarantineError: TRUNCATED, UNREADABLE, NOT_3D, UNSUPPORTED_DTYPE, NO_ORIENTATION, SFORM_QFORM_CONFLICT,
            SINGULAR_AFFINE, NON_FINITE, BAD_SIDECAR, UNSUPPORTED_MODALITY.
    """
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise QuarantineError("UNREADABLE", f"a {type(image).__name__}", "convert to NIfTI")
        shape = _check_shape(image)
        geometry = _geometry(image, shape)
        values = _values(image, path).reshape(shape)
    except QuarantineError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        raise QuarantineError("TRUNCATED", type(error).__name__, "copy the file again from its source") from error
    except Exception as error:  # nibabel raises many types on malformed headers
        raise QuarantineError("UNREADABLE", type(error).__name__, "convert the file again") from error
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        found = f"{wrong} of {values.size} voxels are NaN or infinite"
        raise QuarantineError("NON_FINITE", found, "replace them by a background value at the source")
    modality, facts = _facts(path)
    return Scan(hounsfield(values) if modality == "CT" else compact_integers(values), geometry, modality, facts)


def _values(image: nib.Nifti1Image, path: Path) -> NDArray[Any]:
    """Voxels with slope and intercept applied; a gzip stream is read to its end, because only that checks its CRC."""
    if path.suffix.lower() != ".gz":
        return np.asarray(image.dataobj)
    expected = int(image.dataobj.offset) + math.prod(image.shape) * int(image.get_data_dtype().itemsize)
    with gzip.open(path) as stream:
        content = stream.read(expected)
        while stream.read(_CHUNK_BYTES):
            pass
    if len(content) < expected:
        raise EOFError
    return np.asarray(type(image).from_bytes(content).dataobj)


def _check_shape(image: nib.Nifti1Image) -> tuple[int, ...]:
    """Three axes of a scalar image; further axes may only have length 1."""
    shape = tuple(int(size) for size in image.shape)
    dtype = image.get_data_dtype()
    if dtype.fields is not None or not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
        raise QuarantineError("UNSUPPORTED_DTYPE", f"voxels of type {dtype}", "convert to one scalar a voxel")
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or min(shape) < 1:
        raise QuarantineError("NOT_3D", f"shape {shape}", "extract one 3-D volume")
    return shape[:3]


def _geometry(image: nib.Nifti1Image, shape: tuple[int, ...]) -> Geometry:
    header = image.header
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise QuarantineError("NO_ORIENTATION", "sform_code 0 and qform_code 0", "convert again with orientation")
    try:
        affine = header.get_sform() if sform_code > 0 else header.get_qform()
        geometry = Geometry(shape, affine)
        if sform_code > 0 and qform_code > 0:
            _check_forms(geometry, Geometry(shape, header.get_qform()), _rounding_angle(header))
        units = header.get_xyzt_units()[0]
    except InputError as error:
        raise QuarantineError("SINGULAR_AFFINE", error.found, "convert again with a valid orientation") from error
    factor = _UNITS_MM[units]
    return Geometry(shape, np.diag([factor, factor, factor, 1.0]) @ geometry.affine)


def _rounding_angle(header: Any) -> float:
    """Angle (radians) that rounding of the quaternion to float32 alone can cause.

    A qform stores b, c, d of a unit quaternion; a = √(1 − b² − c² − d²) loses digits where it is small, i.e. for
    rotations near 180 degrees, which every left-posterior image has. The angle error is twice the error of a.
    """
    b, c, d = (float(header[name]) for name in ("quatern_b", "quatern_c", "quatern_d"))
    squared = max(0.0, 1.0 - b * b - c * c - d * d)
    error = 4.0 * float(np.finfo(np.float32).eps)
    return 2.0 * (math.sqrt(squared + error) - math.sqrt(max(0.0, squared - error)))


def _check_forms(sform: Geometry, qform: Geometry, rounding_angle: float) -> None:
    distance = sform.distance_mm(qform)
    extent = float(np.linalg.norm(np.asarray(sform.shape) * sform.spacing_mm))
    allowed = FORM_TOLERANCE_VOXELS * min(sform.spacing_mm) + rounding_angle * extent
    if distance > allowed:
        found = f"sform and qform differ by {distance:.3f} mm, allowed {allowed:.3f} mm"
        raise QuarantineError("SFORM_QFORM_CONFLICT", found, "decide which one is right and store it in both")


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _facts(path: Path) -> tuple[str | None, ScanFacts]:
    """Modality and facts from the sidecar JSON, else from the BIDS suffix."""
    sidecar = _sidecar(path.with_name(_stem(path) + ".json"))
    suffix = _stem(path).rsplit("_", 1)[-1]
    modality = _field(sidecar, "Modality")
    if modality is None and suffix in _MR_SUFFIXES | _CT_SUFFIXES:
        modality = "CT" if suffix in _CT_SUFFIXES else "MR"
    if modality not in (None, "MR", "CT"):
        raise QuarantineError("UNSUPPORTED_MODALITY", f"modality {modality[:16]}", "only MR and CT images are read")
    texts = [_field(sidecar, name) for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
    facts = ScanFacts(
        patient_position=_field(sidecar, "PatientPosition"),
        body_part=_field(sidecar, "BodyPartExamined"),
        sequence_name=sequence_from_text(suffix, *texts) if modality == "MR" else None,
        series_description=texts[0],
        patient_sex=_field(sidecar, "PatientSex"),
        patient_age=_field(sidecar, "PatientAge"),
        study_uid=_field(sidecar, "StudyInstanceUID"),
        series_uid=_field(sidecar, "SeriesInstanceUID"),
        patient_id=_field(sidecar, "PatientID"),
    )
    return modality, facts


def _sidecar(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        if path.stat().st_size > _SIDECAR_LIMIT_BYTES:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise QuarantineError("BAD_SIDECAR", type(error).__name__, "repair or remove the JSON beside it") from error
    if not isinstance(content, dict):
        raise QuarantineError("BAD_SIDECAR", "JSON that is not an object", "repair or remove the JSON beside it")
    return content


def _field(sidecar: dict[str, Any], name: str) -> str | None:
    value = sidecar.get(name)
    return (str(value).strip() or None) if isinstance(value, str | int | float) else None


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
