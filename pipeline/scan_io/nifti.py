"""Read NIfTI-1/2 files of one volume with one strict header policy.

The sform gives the affine if its code is set, else the qform; a file with neither has no orientation and is refused. If
both are set they have to agree to 0.1 voxel. Units other than mm are converted. What is compressed is told by content.
Modality and facts are told by `pipeline.scan_io.sidecar`.
"""

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.scan_io.byte_stream import GZIP_MAGIC, InflatedBytes, check_claim, drain, fill, skip
from pipeline.scan_io.image_policy import STRICT, ImagePolicy
from pipeline.scan_io.nifti_header import Layout, geometry_of, layout_of, read_header, scaling, volume_axes
from pipeline.scan_io.scan import Scan
from pipeline.scan_io.sidecar import facts_beside
from pipeline.scan_io.voxel_values import VoxelValues

_PIECE_BYTES = 256 << 10
"""Voxels converted at a time; fits the cache of a core."""


def is_nifti(path: Path) -> bool:
    """Tell whether a file name ends in .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, policy: ImagePolicy = STRICT, modality: str | None = None) -> Scan:
    """Read a NIfTI file of one scalar volume, or one volume of a 4-D file.

    What the header claims is compared with the size of the file before anything is allocated, and no more is inflated
    than it claims. Memory is that of the result and little more.

    Args:
        path: single-file NIfTI, gzip-compressed or not.
        policy: what to do where the file leaves a choice.
        modality: MR or CT where the place of the file tells it.

    Returns:
        Voxels in the order of the file; flags FORM_CONFLICT (the policy chose sform or qform), NON_FINITE_REPLACED,
        TRAILING_BYTES (something follows the voxels); ``volume_label`` "volume 3" for one of a 4-D file.

    Raises:
        QuarantineError: TRUNCATED, UNREADABLE, UNSUPPORTED_FORMAT, EXPANSION_LIMIT, BAD_VALUE, NOT_3D, VOLUME_INDEX,
            UNSUPPORTED_DTYPE, NO_ORIENTATION, SFORM_QFORM_CONFLICT, SINGULAR_AFFINE, IMPLAUSIBLE_SPACING, NON_FINITE,
            BAD_SIDECAR, UNSUPPORTED_MODALITY, MODALITY_CONFLICT.
    """
    modality, facts = facts_beside(path, modality)
    with _opened(path) as (stream, held):
        header = read_header(stream)
        layout = layout_of(header)
        shape, volume = volume_axes(layout.shape, policy.volume)
        geometry, conflict = geometry_of(header, shape, policy)
        check_claim(layout.end, held, compressed=isinstance(stream, InflatedBytes))
        count = math.prod(shape)
        start = layout.offset + (volume or 0) * count * layout.dtype.itemsize
        skip(stream, start - int(header["sizeof_hdr"]))
        values, replaced = _values(stream, layout, count, scaling(header), modality == "CT", policy.max_non_finite)
        trailing = _finish(stream, layout.end - start - count * layout.dtype.itemsize, held - layout.end)
    named = {"FORM_CONFLICT": conflict, "NON_FINITE_REPLACED": replaced, "TRAILING_BYTES": trailing}
    flags = tuple(name for name, is_set in named.items() if is_set)
    label = None if volume is None else f"volume {volume}"
    return Scan(values.reshape(shape, order="F"), geometry, modality, replace(facts, flags=flags, volume_label=label))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The bytes of a file, inflated where it is gzip, and its size; errors of reading become refusals."""
    try:
        with path.open("rb", buffering=0) as file:
            held = file.seek(0, io.SEEK_END)
            file.seek(0)
            compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            yield cast(BinaryIO, InflatedBytes(cast(BinaryIO, file)) if compressed else file), held
    except (EOFError, OSError, zlib.error) as error:
        raise QuarantineError("TRUNCATED", type(error).__name__, "Copy the file again from its source.") from error


def _values(
    stream: BinaryIO,
    layout: Layout,
    count: int,
    scale: tuple[float, float] | None,
    in_hounsfield: bool,
    max_non_finite: float,
) -> tuple[NDArray[Any], bool]:
    """``count`` voxels of a stream, scaled, and whether some had to be replaced."""
    if scale is None and layout.dtype == np.int16:  # as it is stored here, byte order included
        stored = np.empty(count, dtype=np.int16)
        fill(stream, stored.view(np.uint8).data)
        return stored, False
    values = VoxelValues(count, in_hounsfield=in_hounsfield)
    piece = np.empty(min(count, _PIECE_BYTES // layout.dtype.itemsize), dtype=layout.dtype)
    for start in range(0, count, piece.size):
        part = piece[: count - start]
        if scale is None and (room := values.room(part.size, layout.dtype)) is not None:
            part = room
        fill(stream, part.view(np.uint8).data)
        values.add(_scaled(part, scale))
    return values.finish(max_non_finite), values.non_finite > 0


def _scaled(part: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[Any]:
    if scale is None:
        return part
    with np.errstate(over="ignore", invalid="ignore"):
        return part.astype(np.float64) * scale[0] + scale[1]


def _finish(stream: BinaryIO, other_volumes: int, behind: int) -> bool:
    """Tell whether anything follows the voxels; what is compressed is read to its end, for only that checks its CRC."""
    if not isinstance(stream, InflatedBytes):
        return behind > 0
    skip(stream, other_volumes)
    return drain(stream) > 0 or stream.trailing
