"""The pixels of one planned volume; runs in the parsing process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io.dicom.direct import is_plain, read_direct
from pipeline.scan_io.dicom.modality import modality_values
from pipeline.scan_io.dicom.pixels import FrameSource, Pixels
from pipeline.scan_io.dicom.stacking import Stack, stack
from pipeline.scan_io.dicom.volume_plan import PlannedFrame, VolumePlan
from pipeline.scan_io.scan import HU_MINIMUM, Scan, ScanFacts

_INT16 = np.iinfo(np.int16)

Empty = Callable[[tuple[int, ...], type[np.int16]], NDArray[np.int16]]
"""Makes an array of a shape and type, as `numpy.empty` does."""


class DamagedFileError(QuarantineError):
    """One file of a volume cannot be decoded.

    Attributes:
        file: its number in the plan.
    """

    file: int = -1


def read_volume(plan: VolumePlan, empty: Empty = np.empty) -> Scan:
    """Read the images of a plan into a volume.

    Args:
        plan: what belongs to the volume.
        empty: makes the array that the volume is read into.

    Returns:
        Voxels (column, row, slice), the first axis contiguous, slices by growing position along the normal. CT: HU,
        int16, padding set to −1024. MR: stored values after the Modality LUT, MONOCHROME1 inverted; int16, or float32
        where int16 cannot hold them. A tilted CT is corrected (`pipeline.scan_io.dicom.tilt`).

    Raises:
        DamagedFileError: a file cannot be read or decoded.
        QuarantineError: DUPLICATE_POSITION, and what `stack` refuses.
    """
    modality = plan.headers[plan.frames[0].file].modality
    grid = _stacked(plan)
    source = FrameSource()
    volume: _Voxels | None = None
    for number, copies in enumerate(grid.slices):
        planned = plan.frames[copies[0]]
        if volume is not None and len(copies) == 1 and grid.shear is None and volume.array.dtype == np.int16:
            path, header = plan.paths[planned.file], plan.headers[planned.file]
            if read_direct(path, header, planned.frame, modality, volume.array[number]):
                continue
        values = _slice(plan, [plan.frames[index] for index in copies], source, modality)
        if grid.shear is not None:
            values = np.rint(grid.shear.moved(values, number, HU_MINIMUM)).astype(np.int16)
        volume = volume or _Voxels((len(grid.slices), *values.shape), empty)
        volume.put(number, values)
    assert volume is not None  # noqa: S101  # a plan has frames
    voxels = volume.array.transpose(2, 1, 0)
    return Scan(voxels, Geometry(voxels.shape, grid.affine), modality, _facts(plan, grid))


def may_be_plain(plan: VolumePlan) -> bool:
    """Whether `read_plain_volume` has a chance, as far as the headers tell."""
    modality = plan.headers[plan.frames[0].file].modality
    return all(is_plain(plan.headers[planned.file], planned.frame, modality) for planned in plan.frames)


def read_plain_volume(plan: VolumePlan, empty: Empty = np.empty) -> Scan | None:
    """Read a volume whose pixels only need to be copied; nothing of its files is parsed.

    Args:
        plan: what belongs to the volume.
        empty: makes the array that the volume is read into.

    Returns:
        What `read_volume` returns; None where that may differ: a slice is not plain, is damaged or repeated, the gantry
        was tilted, or the slices make no volume.
    """
    first = plan.headers[plan.frames[0].file]
    try:
        grid = _stacked(plan)
    except QuarantineError:
        return None
    if grid.shear is not None or first.pixels is None or any(len(copies) > 1 for copies in grid.slices):
        return None
    array = empty((len(grid.slices), first.pixels.rows, first.pixels.columns), np.int16)
    for target, (number,) in zip(array, grid.slices, strict=True):
        planned = plan.frames[number]
        path, header = plan.paths[planned.file], plan.headers[planned.file]
        if not read_direct(path, header, planned.frame, first.modality, target):
            return None
    voxels = array.transpose(2, 1, 0)
    return Scan(voxels, Geometry(voxels.shape, grid.affine), first.modality, _facts(plan, grid))


def _stacked(plan: VolumePlan) -> Stack:
    first = plan.headers[plan.frames[0].file]
    frames = [planned.frame for planned in plan.frames]
    correct = plan.gantry_tilt == "correct"
    return stack(frames, first.modality, first.slice_distance_mm, first.gantry_tilt_degrees, correct)


def _slice(plan: VolumePlan, copies: list[PlannedFrame], source: FrameSource, modality: str) -> NDArray[Any]:
    """Values of one slice; refuses images at one position that differ."""
    stored, raw = _stored(plan, copies[0], source)
    for copy in copies[1:]:
        if not np.array_equal(_stored(plan, copy, source)[0], stored):
            positions = len({planned.frame.position for planned in plan.frames})
            found = f"{len(plan.frames)} images at {positions} positions, with different pixels at one of them"
            raise QuarantineError("DUPLICATE_POSITION", found, "Split the series by acquisition, echo or time.")
    planned = copies[0]
    pixels = plan.headers[planned.file].pixels
    assert pixels is not None  # noqa: S101  # `FrameSource.stored` has refused it
    table = source.modality_table(plan.paths[planned.file]) if planned.frame.lookup else None
    return modality_values(stored, raw, pixels, planned.frame, modality, table)


def _stored(plan: VolumePlan, planned: PlannedFrame, source: FrameSource) -> tuple[Pixels, Pixels]:
    try:
        return source.stored(plan.paths[planned.file], plan.headers[planned.file], planned.frame)
    except QuarantineError as error:
        if isinstance(error.__cause__, MemoryError):
            raise
        damage = DamagedFileError(error.reason, error.found, error.advice)
    except OSError as error:
        damage = DamagedFileError(
            "UNREADABLE", type(error).__name__, "Give yourself permission to read it, or copy it again."
        )
    damage.file = planned.file
    raise damage


class _Voxels:
    """A volume (slices, rows, columns) that is int16 until a value comes that int16 cannot hold, then float32."""

    def __init__(self, shape: tuple[int, ...], empty: Empty) -> None:
        self.array: NDArray[Any] = empty(shape, np.int16)

    def put(self, number: int, values: NDArray[Any]) -> None:
        if self.array.dtype == np.int16 and values.dtype != np.int16:
            whole = np.array_equal(values, np.rint(values))
            if not (whole and _INT16.min <= values.min() and values.max() <= _INT16.max):
                self.array = self.array.astype(np.float32)
        self.array[number] = values


def _facts(plan: VolumePlan, grid: Stack) -> ScanFacts:
    kept = [plan.frames[copies[0]] for copies in grid.slices]
    headers = [plan.headers[planned.file] for planned in kept]
    flags = {"LOSSY" for header in headers if header.lossy} | {"DERIVED" for header in headers if header.derived}
    if grid.shear is not None:
        flags.add("TILT_CORRECTED")
    return replace(
        headers[0].facts,
        sop_instance_uids=tuple(header.sop_instance_uid for header in headers),
        volume_label=plan.label,
        flags=tuple(sorted(flags)),
        tilt_degrees=None if grid.shear is None else grid.shear.degrees,
    )
