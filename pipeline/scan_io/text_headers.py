"""The text headers of MetaImage and NRRD: what they claim, checked before a library reads the voxels.

MetaImage after the MetaIO documentation (Kitware), NRRD after teem.sourceforge.net/nrrd/format.html. One 3-D scalar
image in binary form, with its place in the patient, its voxels in the file or in one file beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import checked_affine
from pipeline.scan_io.byte_stream import GZIP_WINDOW, ZLIB_WINDOW
from pipeline.scan_io.image_policy import check_spacing

HEADER_LIMIT_BYTES = 64 << 10
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_META_PLACE = (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"), ("ElementSpacing",))
_NRRD_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2,
    "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2,
    "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4,
    "longlong": 8, "long long": 8, "long long int": 8, "signed long long": 8, "signed long long int": 8, "int64": 8,
    "int64_t": 8, "ulonglong": 8, "unsigned long long": 8, "unsigned long long int": 8, "uint64": 8, "uint64_t": 8,
    "float": 4, "double": 8,
}  # fmt: skip
_NRRD_SPACES = frozenset(
    {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
)
_WRITE_AGAIN = "Write the image again with a current ITK, SimpleITK or 3D Slicer."
_BINARY = "Write it as binary data, raw or gzip-compressed."


@dataclass(frozen=True)
class Claims:
    """What a header says of the voxels.

    Attributes:
        shape: (i, j, k).
        voxel_bytes: bytes a voxel.
        data: file that holds the voxels.
        offset: of the first of their bytes; −1 where they end with the file.
        window: argument of `zlib.decompressobj`, or None for raw data.
    """

    shape: tuple[int, ...]
    voxel_bytes: int
    data: Path
    offset: int
    window: int | None


def read_claims(path: Path) -> Claims:
    """Parse the header of a .mha, .mhd, .nrrd or .nhdr file, told by its content.

    Raises:
        QuarantineError: UNREADABLE, UNSUPPORTED_FORMAT, UNSUPPORTED_DTYPE, NOT_3D, BAD_VALUE, NO_ORIENTATION,
            SINGULAR_AFFINE, IMPLAUSIBLE_SPACING, OUTSIDE_REFERENCE, MISSING_REFERENCE.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_LIMIT_BYTES)
    return _nrrd(path, start) if start.startswith(b"NRRD000") else _meta(path, start)


def _meta(path: Path, start: bytes) -> Claims:
    last = re.search(rb"^ElementDataFile\s*=[^\n]*(\n|\Z)", start, re.MULTILINE)
    if last is None:
        raise QuarantineError("UNREADABLE", "no MetaImage or NRRD header", "Check what the file is.")
    fields = _fields(start[: last.end()], r"\s*(\w+)\s*=\s*(.*?)\s*")
    shape = _shape(fields, "NDims", "DimSize")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise QuarantineError("NOT_3D", "several channels a voxel", "Write one scalar a voxel.")
    if not _is_true(fields.get("BinaryData")):
        raise QuarantineError("UNSUPPORTED_FORMAT", "voxels as text", _BINARY)
    matrix, origin, spacing = ([_numbers(fields, name) for name in names if name in fields] for names in _META_PLACE)
    if not (matrix and origin and spacing):
        found = "no TransformMatrix, Offset or ElementSpacing"
        raise QuarantineError("NO_ORIENTATION", found, _WRITE_AGAIN)
    _check_place(np.reshape(_exactly(matrix[0], 9), (3, 3)).T * _exactly(spacing[0], 3), _exactly(origin[0], 3))
    data, offset = _data_file(path, fields["ElementDataFile"]), int(_whole(fields.get("HeaderSize", "0"), "HeaderSize"))
    window = ZLIB_WINDOW if _is_true(fields.get("CompressedData")) else None
    if data == path:
        offset = last.end()
    elif offset < 0 and window is not None:
        raise QuarantineError("UNSUPPORTED_FORMAT", "compressed data of unknown start", _WRITE_AGAIN)
    return Claims(shape, _voxel_bytes(_META_BYTES, fields.get("ElementType", "")), data, offset, window)


def _nrrd(path: Path, start: bytes) -> Claims:
    end = re.search(rb"\r?\n\r?\n", start)
    header = start if end is None else start[: end.start()]
    lines = [line for line in header.splitlines()[1:] if not line.startswith(b"#") and b":=" not in line]
    fields = {name.lower(): value for name, value in _fields(b"\n".join(lines), r"([^:]+?)\s*: ?\s*(.*?)\s*").items()}
    shape = _shape(fields, "dimension", "sizes")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise QuarantineError("UNSUPPORTED_FORMAT", "an encoding other than raw and gzip", _BINARY)
    skipped = _whole(fields.get("byte skip", fields.get("byteskip", "0")), "byte skip")
    if fields.get("line skip", fields.get("lineskip", "0")) != "0" or (encoding != "raw" and skipped) or skipped < -1:
        raise QuarantineError("UNSUPPORTED_FORMAT", "lines or bytes to skip before the voxels", _WRITE_AGAIN)
    _check_nrrd_place(fields)
    name = fields.get("data file", fields.get("datafile"))
    if name is None and end is None:
        raise QuarantineError("TRUNCATED", "no end of the header", "Copy the file again from its source.")
    data = path if name is None else _data_file(path, name)
    offset = skipped if skipped < 0 or end is None or data != path else end.end() + skipped
    window = None if encoding == "raw" else GZIP_WINDOW
    return Claims(shape, _voxel_bytes(_NRRD_BYTES, fields.get("type", "")), data, offset, window)


def _check_nrrd_place(fields: Mapping[str, str]) -> None:
    vectors = [text.split(",") for text in re.findall(r"\(([^()]*)\)", fields.get("space directions", ""))]
    origin = re.findall(r"\(([^()]*)\)", fields.get("space origin", ""))
    if fields.get("space", "").lower() not in _NRRD_SPACES or len(vectors) != 3 or len(origin) != 1:
        found = "no anatomical space with three directions and an origin"
        raise QuarantineError("NO_ORIENTATION", found, "Write it with space LPS or RAS, space directions and origin.")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm", ""}
    if units:
        raise QuarantineError("BAD_VALUE", "space units other than mm", "Write the image in mm.")
    columns = [_exactly(_floats(vector, "space directions"), 3) for vector in vectors]
    _check_place(np.array(columns).T, _exactly(_floats(origin[0].split(","), "space origin"), 3))


def _fields(header: bytes, pattern: str) -> dict[str, str]:
    """Fields by name; a field given twice is refused, because readers differ on which one holds."""
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").splitlines():
        match = re.fullmatch(pattern, line)
        if match is None:
            continue
        if match[1] in fields:
            raise QuarantineError("BAD_VALUE", "a header field given twice", _WRITE_AGAIN)
        fields[match[1]] = match[2]
    return fields


def _shape(fields: Mapping[str, str], axes: str, sizes: str) -> tuple[int, ...]:
    shape = tuple(_whole(size, sizes) for size in fields.get(sizes, "").split()[:16])
    if str(len(shape)) != fields.get(axes):
        raise QuarantineError(
            "BAD_VALUE", f"{len(shape)} values of {sizes} that {axes} does not agree with", _WRITE_AGAIN
        )
    if len(shape) != 3 or min(shape) < 1:
        raise QuarantineError("NOT_3D", f"shape {shape}", "Extract one 3-D volume.")
    return shape


def _data_file(path: Path, name: str) -> Path:
    """The file that holds the voxels: the header's own, or one beside it, named without a path."""
    if name.lower() == "local":
        return path
    if name.split(" ")[0] == "LIST" or re.search(r"%[0-9]*[du]", name):
        raise QuarantineError("UNSUPPORTED_FORMAT", "voxels in a list of files", "Write the image to one file.")
    if not name or name != Path(name).name or name in (".", "..") or re.search(r"[\\/:\0]", name):
        found = "a data file that is not named as one in the folder of its header"
        raise QuarantineError("OUTSIDE_REFERENCE", found, "Put both files into one folder, and name the file alone.")
    data = path.with_name(name)
    if data.is_symlink() or not data.is_file():
        raise QuarantineError("MISSING_REFERENCE", "a data file that is not beside its header", "Add the file.")
    return data


def _check_place(columns: np.ndarray[tuple[int, ...], np.dtype[np.float64]], origin: list[float]) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    try:
        checked_affine(affine)
    except InputError as error:
        raise QuarantineError("SINGULAR_AFFINE", error.found, "Write the image again with its orientation.") from error
    check_spacing(np.linalg.norm(columns, axis=0).tolist(), "mm")


def _voxel_bytes(sizes: Mapping[str, int], name: str) -> int:
    if name not in sizes:
        raise QuarantineError("UNSUPPORTED_DTYPE", "another type of voxel", "Write one integer or float a voxel.")
    return sizes[name]


def _numbers(fields: Mapping[str, str], name: str) -> list[float]:
    return _floats(fields[name].split(), name)


def _floats(texts: list[str], name: str) -> list[float]:
    try:
        return [float(text) for text in texts[:16]]
    except ValueError:
        raise QuarantineError("BAD_VALUE", f"{name} with something that is no number", _WRITE_AGAIN) from None


def _exactly(values: list[float], count: int) -> list[float]:
    if len(values) != count:
        raise QuarantineError("BAD_VALUE", f"{len(values)} numbers where {count} belong", _WRITE_AGAIN)
    return values


def _whole(text: str, name: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise QuarantineError("BAD_VALUE", f"{name} that is no whole number, or too large", _WRITE_AGAIN)
    return int(text)


def _is_true(text: str | None) -> bool:
    return (text or "")[:1] in ("T", "t", "1")
