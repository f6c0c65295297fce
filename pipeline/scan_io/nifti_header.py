"""The part of a NIfTI-1 or NIfTI-2 header that tells where voxels lie, in the file and in the patient.

Fields after nifti1.h and nifti2.h (NIfTI Data Format Working Group). Texts and extensions are not looked at.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io.byte_stream import fill
from pipeline.scan_io.image_policy import ImagePolicy, check_spacing

FORM_TOLERANCE_VOXELS = 0.1
"""Largest distance, in voxels, between where sform and qform put the same voxel."""

HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_UNITS = {0: ("unknown", 1.0), 1: ("meter", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}
_UNIT_BITS = 0x07
_REPAIR = "Convert the file again, or repair its header."


@dataclass(frozen=True)
class Layout:
    """Where the voxels lie in the file.

    Attributes:
        shape: all axes of the file.
        dtype: as stored, with byte order.
        offset: of the first voxel, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def end(self) -> int:
        """Offset behind the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: BinaryIO) -> Any:
    """The nibabel header at the start of a stream of single-file NIfTI; nothing of it is checked yet.

    Raises:
        QuarantineError: UNREADABLE, UNSUPPORTED_FORMAT.
        EOFError: the stream ends within it.
    """
    block = bytearray(348)
    fill(stream, memoryview(block))
    for order in "<>":
        (size,) = struct.unpack(order + "i", block[:4])
        if size in HEADER_BYTES:
            break
    else:
        raise QuarantineError("UNREADABLE", "no NIfTI header", "Check what the file is; convert it to NIfTI.")
    rest = bytearray(size - len(block))
    fill(stream, memoryview(rest))
    header = HEADER_BYTES[size](bytes(block + rest), endianness=order, check=False)
    magic = bytes(header["magic"].tobytes())
    if magic[:3] in (b"ni1", b"ni2"):
        found = "the header of a .hdr/.img pair"
        raise QuarantineError("UNSUPPORTED_FORMAT", found, "Convert the pair to one .nii file.")
    if magic[:3] not in (b"n+1", b"n+2"):
        found = "a header without the mark of NIfTI, as Analyze 7.5 has it"
        raise QuarantineError("UNSUPPORTED_FORMAT", found, "Convert to NIfTI: Analyze does not tell left from right.")
    return header


def layout_of(header: Any) -> Layout:
    """Shape, type and place of the voxels.

    Raises:
        QuarantineError: BAD_VALUE, UNSUPPORTED_DTYPE, NOT_3D.
    """
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise _bad(f"dim[0] = {axes}, allowed 1 to 7")
    shape = tuple(int(size) for size in header["dim"][1 : axes + 1])
    if len(shape) < 3 or min(shape) < 1:
        raise QuarantineError("NOT_3D", f"shape {shape}", "Extract one 3-D volume.")
    return Layout(shape, _dtype(header), _offset(header))


def volume_axes(shape: tuple[int, ...], volume: int | None) -> tuple[tuple[int, ...], int | None]:
    """Shape of the volume to take, and its number where there are several.

    Raises:
        QuarantineError: NOT_3D, VOLUME_INDEX.
    """
    count = shape[3] if len(shape) > 3 else 1
    several = [size for size in shape[3:] if size != 1]
    if not several:
        return shape[:3], None
    if volume is None or several != [count]:
        advice = "Extract one 3-D volume, or choose one of a 4-D file with ingest.nifti_volume."
        raise QuarantineError("NOT_3D", f"shape {shape}", advice)
    if volume >= count:
        found = f"volume {volume} chosen, but the file has volumes 0 to {count - 1}"
        raise QuarantineError("VOLUME_INDEX", found, "Choose another ingest.nifti_volume.")
    return shape[:3], volume


def scaling(header: Any) -> tuple[float, float] | None:
    """Slope and intercept, or None where values are stored as they are: slope 0 or not finite, as nifti1.h has it.

    Raises:
        QuarantineError: BAD_VALUE for an intercept that is not finite.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope, intercept) == (1.0, 0.0):
        return None
    if not math.isfinite(intercept):
        raise _bad(f"scl_slope {slope:g} with scl_inter {intercept:g}")
    return slope, intercept


def geometry_of(header: Any, shape: tuple[int, ...], policy: ImagePolicy) -> tuple[Geometry, bool]:
    """The grid, and whether sform and qform contradicted each other and the policy decided.

    The sform gives the affine if its code is set, else the qform. Where both are set they have to agree to 0.1 voxel.

    Raises:
        QuarantineError: NO_ORIENTATION, SINGULAR_AFFINE, SFORM_QFORM_CONFLICT, BAD_VALUE, IMPLAUSIBLE_SPACING.
    """
    forms = [name for name in ("sform", "qform") if int(header[f"{name}_code"]) > 0]
    if not forms:
        raise QuarantineError("NO_ORIENTATION", "sform_code 0 and qform_code 0", "Convert again with orientation.")
    conflict = False
    geometry = None
    if len(forms) == 2 and policy.form_conflict == "refuse":
        geometry, qform = _form(header, "sform", shape), _form(header, "qform", shape)
        _check_forms(geometry, qform, _rounding_angle(header))
    elif len(forms) == 2:
        geometry, conflict = _chosen_form(header, shape, policy.form_conflict)
    geometry = geometry or _form(header, forms[0], shape)
    unit, factor = _unit(header)
    check_spacing([size * factor for size in geometry.spacing_mm], unit)
    return Geometry(shape, np.diag([factor, factor, factor, 1.0]) @ geometry.affine), conflict


def _chosen_form(header: Any, shape: tuple[int, ...], chosen: str) -> tuple[Geometry, bool]:
    """The sform where the forms agree, else the chosen one, and whether they differ."""
    try:
        _check_forms(sform := _form(header, "sform", shape), _form(header, "qform", shape), _rounding_angle(header))
    except QuarantineError:
        return _form(header, chosen, shape), True
    return sform, False


def _form(header: Any, name: str, shape: tuple[int, ...]) -> Geometry:
    """The grid by sform or qform, in units of the header."""
    try:
        return Geometry(shape, header.get_sform() if name == "sform" else header.get_qform())
    except InputError as error:
        found = f"{name} with {error.found}"
    except (ValueError, HeaderDataError):  # nibabel: a quaternion longer than 1, a negative pixdim
        sizes = ", ".join(f"{float(size):g}" for size in header["pixdim"][:4])
        found = f"a qform that is no rotation, or pixdim {sizes}"
    raise QuarantineError("SINGULAR_AFFINE", found, "Convert again with a valid orientation.")


def _unit(header: Any) -> tuple[str, float]:
    code = int(header["xyzt_units"]) & _UNIT_BITS
    if code not in _UNITS:
        raise _bad(f"unit code {code}, allowed 0 (unknown, taken as mm), 1 (m), 2 (mm), 3 (micron)")
    return _UNITS[code]


def _rounding_angle(header: Any) -> float:
    """Angle (radians) that rounding of the quaternion to float32 alone can cause.

    A qform stores b, c, d of a unit quaternion; a = √(1 − b² − c² − d²) loses digits where it is small, i.e. for
    rotations near 180 degrees, which every left-posterior image has. The angle error is twice the error of a. NIfTI-2
    headers are often made from NIfTI-1 ones, so that the allowance holds for both.
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
        advice = "Decide which one is right and store it in both, or set ingest.form_conflict."
        raise QuarantineError("SFORM_QFORM_CONFLICT", found, advice)


def _dtype(header: Any) -> np.dtype[Any]:
    """Voxel type: integers and floats up to 64 bits; bitpix has to agree with it."""
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        dtype = np.dtype(object)
    if dtype.fields is not None or dtype.kind not in "iuf" or dtype.itemsize > 8:
        known = "RGB" if dtype.fields is not None else "complex" if dtype.kind == "c" else "other"
        found = f"datatype code {code} ({known})"
        raise QuarantineError("UNSUPPORTED_DTYPE", found, "Convert to one integer or float a voxel.")
    if bits not in (0, 8 * dtype.itemsize):
        raise _bad(f"bitpix {bits} with datatype code {code} of {8 * dtype.itemsize} bits")
    return dtype


def _offset(header: Any) -> int:
    """Where voxels start: 0 stands for right behind the header and its extension flag."""
    value = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    if value == 0:
        return least
    if not math.isfinite(value) or value != int(value) or not least <= value < 1 << 40:
        raise _bad(f"vox_offset {value:g}, allowed from {least}")
    return int(value)


def _bad(found: str) -> QuarantineError:
    return QuarantineError("BAD_VALUE", found, _REPAIR)
