"""Stored values to HU (CT) or scanner units (MR): Modality LUT, inversion, padding.

Philips MR is scaled by RescaleSlope and RescaleIntercept, to what the console displays (dcm2niix ``-p n``):
displayed = stored · RescaleSlope + RescaleIntercept. The "precise" values of dcm2niix ``-p y``, displayed /
(RescaleSlope · (2005,100E)), differ from them by a factor for each series, are in no unit either, and rest on a private
element; they are never used.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scan_io.dicom.header import FrameHeader, PixelFormat
from pipeline.scan_io.dicom.pixels import Pixels
from pipeline.scan_io.scan import HU_MINIMUM

_INT16 = np.iinfo(np.int16)


def modality_values(
    stored: Pixels, raw: Pixels, pixels: PixelFormat, frame: FrameHeader, modality: str, table: Any = None
) -> NDArray[Any]:
    """HU or scanner units: int16 where the values are whole and fit, float64 otherwise.

    Args:
        stored: stored values.
        raw: the same before other data was masked out; padding may be told in either.
        pixels: how they are stored.
        frame: the linear Modality LUT.
        modality: CT keeps its values where MONOCHROME1 says how to display them, MR is inverted.
        table: data set with a Modality LUT sequence where ``frame.lookup``.
    """
    padding = _padding(stored, raw, pixels)
    if pixels.inverted and modality == "MR":
        low = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
        stored = (2 * low + (1 << pixels.bits_stored) - 1) - stored.astype(np.int64)
    values = _looked_up(stored, table) if frame.lookup else _linear(stored, frame)
    if modality == "CT" and values.dtype != np.int16:
        values = np.clip(np.rint(values), _INT16.min, _INT16.max).astype(np.int16)
    if padding is not None and padding.any():
        values = np.where(padding, np.array(HU_MINIMUM if modality == "CT" else 0, dtype=values.dtype), values)
    return values


def _looked_up(stored: Pixels, table: Any) -> NDArray[Any]:
    from pydicom.pixels import apply_modality_lut

    return np.asarray(apply_modality_lut(stored, table))


def _linear(stored: Pixels, frame: FrameHeader) -> NDArray[Any]:
    """Stored · slope + intercept."""
    slope = 1.0 if frame.slope in (None, 0.0) else frame.slope
    intercept = frame.intercept or 0.0
    if slope == 1.0 and intercept.is_integer():
        low, high = int(stored.min()) + int(intercept), int(stored.max()) + int(intercept)
        if _INT16.min <= low and high <= _INT16.max:
            return np.add(stored, int(intercept), dtype=np.int32).astype(np.int16)
    return np.asarray(stored, dtype=np.float64) * slope + intercept


def _padding(stored: Pixels, raw: Pixels, pixels: PixelFormat) -> NDArray[np.bool_] | None:
    """Pixels that hold padding, not anatomy (PS3.3 C.7.5.1.1.2), or None where the header names none."""
    if pixels.padding is None:
        return None
    low, high = (_as_stored(value, pixels) for value in pixels.padding)
    low, high = min(low, high), max(low, high)
    found = (stored >= low) & (stored <= high)
    if raw is not stored:
        found |= (raw >= low) & (raw <= high)
    return np.asarray(found)


def _as_stored(value: int, pixels: PixelFormat) -> int:
    """A padding value with the sign of the pixels; writers confuse US and SS."""
    span = 1 << pixels.bits_allocated
    value %= span
    return value - span if pixels.signed and value >= span // 2 else value
