"""Reads a written CT series back and compares it with what was meant, before the series gets its final name.

What planning systems refuse a series for is looked for as well (PS3.3 C.7.4.1, C.7.6.2, C.8.2.1; PS3.5 6.2): several
frames of reference, two slices at one place, unequal distances, oblique axes, UIDs and Decimal Strings that are too
long, no rescale and no patient position. Nothing here is shared with the writer: places follow from the headers by
equation C.7.6.2.1-1.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from pipeline.errors import WorkspaceError
from pipeline.geometry import OBLIQUE_TOLERANCE, affine_from_dicom
from pipeline.scan_io.scan import HU_MAXIMUM, HU_MINIMUM

PLACE_TOLERANCE_MM = 1e-4
"""Largest distance between a voxel's place as meant and as read back."""

_UID_CHARACTERS, _DECIMAL_CHARACTERS = 64, 16
"""Most characters of a UI and of a DS value (PS3.5 6.2)."""

_ONE_VALUE = (
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientPosition", "Rows", "Columns",
    "PixelSpacing", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
"""Attributes that every slice has, with one value in the series that is not empty."""

_FIXED: dict[str, Any] = {"Modality": "CT", "SyntheticData": "YES", "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}
_AXIAL = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
_READ_ERRORS = (OSError, InvalidDicomError, ValueError, AttributeError, KeyError, TypeError, NotImplementedError)


def check_written_series(folder: Path, hu: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Compare every slice in ``folder`` with what was meant.

    Args:
        folder: holds the series and nothing else.
        hu: (column, row, slice), slices upwards; compared after rounding and clipping to [−1024, 3071].
        affine: voxel index → RAS+ mm, axial.

    Raises:
        WorkspaceError: something differs, or the series breaks a rule; all findings are named.
    """
    faults = series_faults(sorted(folder.iterdir()), hu, affine)
    if faults:
        raise WorkspaceError(
            "A CT series must read back from disk as it was meant, or it is not kept.",
            found="; ".join(faults[:8]),
            allowed=f"equal HU, places within {PLACE_TOLERANCE_MM:g} mm, one frame of reference, equal spacing",
            change="Check the disk, then run the same command again; if it stays, please report it.",
        )


def series_faults(paths: Sequence[Path], hu: NDArray[Any], affine: NDArray[np.float64]) -> list[str]:
    """What is wrong with the series that ``paths`` hold; empty where nothing is. See `check_written_series`."""
    with disable_value_validation():  # what is too long is told here, not warned of
        slices = []
        for path in paths:
            try:
                slices.append(dcmread(path))
                _ = slices[-1].pixel_array  # decoded here, so that a damaged file is told by its name
            except _READ_ERRORS as error:
                return [f"{path.name} cannot be read ({type(error).__name__})"]
        if len(slices) != hu.shape[2]:
            return [f"{len(slices)} files for {hu.shape[2]} slices"]
        faults = [fault for item in slices for fault in _text_faults(item)] + _shared_faults(slices)
        if faults:
            return list(dict.fromkeys(faults))
        slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
        return _place_faults(slices) or _difference(slices, hu, affine)


def _text_faults(item: Dataset) -> list[str]:
    """Values that their representation cannot hold; the characters as they stand in the file."""
    faults = []
    for element in item.iterall():
        if element.VR not in ("UI", "DS") or element.value is None:
            continue
        limit = _UID_CHARACTERS if element.VR == "UI" else _DECIMAL_CHARACTERS
        values = element.value if element.VM > 1 else [element.value]
        if any(len(str(value)) > limit for value in values):
            faults.append(f"{element.keyword} has more than {limit} characters")
    return faults


def _shared_faults(slices: Sequence[Dataset]) -> list[str]:
    faults = []
    for name in _ONE_VALUE:
        values = {str(item.get(name, "")) for item in slices}
        if "" in values or "None" in values:
            faults.append(f"{name} is missing")
        elif len(values) > 1:
            faults.append(f"{name} has {len(values)} values in one series")
    faults += [
        f"{name} is {item.get(name)}"
        for name, value in _FIXED.items()
        for item in slices
        if (list(item.get(name, [])) if name == "ImageType" else item.get(name)) != value
    ]
    if len({item.SOPInstanceUID for item in slices}) < len(slices):
        faults.append("SOPInstanceUID occurs more than once")
    cosines = np.asarray(slices[0].get("ImageOrientationPatient") or np.zeros(6), dtype=np.float64)
    if cosines.shape != (6,) or np.abs(cosines - _AXIAL).max() > OBLIQUE_TOLERANCE:
        faults.append(f"ImageOrientationPatient is {cosines.tolist()}, not axial")
    return faults


def _place_faults(slices: Sequence[Dataset]) -> list[str]:
    places = np.array([[float(value) for value in item.ImagePositionPatient] for item in slices])
    steps = np.diff(places, axis=0)
    if not len(steps):
        return []
    lengths = np.linalg.norm(steps, axis=1)
    if lengths.min() <= PLACE_TOLERANCE_MM:
        return ["two slices lie at one ImagePositionPatient"]
    if np.abs(steps - steps.mean(axis=0)).max() > PLACE_TOLERANCE_MM:
        return [f"slices lie {lengths.min():g} to {lengths.max():g} mm apart, or not above each other"]
    return []


def _difference(slices: Sequence[Dataset], hu: NDArray[Any], affine: NDArray[np.float64]) -> list[str]:
    """Compare places, then HU slice by slice."""
    distance = _distance(_affine(slices), affine, hu.shape)
    if not distance <= PLACE_TOLERANCE_MM:
        return [f"voxels lie up to {distance:g} mm from where they belong"]
    faults = []
    for k, item in enumerate(slices):
        wanted = np.clip(np.rint(hu[:, :, k].T), HU_MINIMUM, HU_MAXIMUM)
        read = item.pixel_array * float(item.RescaleSlope) + float(item.RescaleIntercept)
        if read.shape != wanted.shape:
            faults.append(f"slice {k + 1} has {read.shape} pixels, not {wanted.shape}")
        elif not np.array_equal(read, wanted):
            faults.append(f"slice {k + 1} differs in {int((read != wanted).sum())} pixels")
    return faults


def _affine(slices: Sequence[Dataset]) -> NDArray[np.float64]:
    """Affine of slices in order, from the first and the last position."""
    first, last = (np.array([float(value) for value in slices[n].ImagePositionPatient]) for n in (0, -1))
    alone = np.array([0.0, 0.0, float(slices[0].SliceThickness)])
    step = (last - first) / (len(slices) - 1) if len(slices) > 1 else alone
    cosines, spacing = slices[0].ImageOrientationPatient, slices[0].PixelSpacing
    return affine_from_dicom([float(v) for v in cosines], [float(v) for v in spacing], first.tolist(), step.tolist())


def _distance(found: NDArray[np.float64], meant: NDArray[np.float64], shape: Sequence[int]) -> float:
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm(corners @ (found - meant).T, axis=1).max())
