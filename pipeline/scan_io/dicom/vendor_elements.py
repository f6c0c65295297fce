"""MR facts that vendors keep in private elements, or in ImageType: b-value, part of a complex image.

Elements as dcm2niix and the vendors' DICOM conformance statements name them: GE (0043,xx39) b-value and (0043,xx2F)
image component of GEMS_PARM_01; Siemens (0019,xx0C) of SIEMENS MR HEADER; Philips (2001,xx03) of Philips Imaging DD
001.
"""

import math
import struct
from collections.abc import Sequence

from pipeline.scan_io.dicom.attributes import Attributes

_GE, _SIEMENS, _PHILIPS = "GEMS_PARM_01", "SIEMENS MR HEADER", "Philips Imaging DD 001"
_GE_PARTS = {0: "M", 1: "P", 2: "R", 3: "I"}
_PARTS = {"MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I", "M": "M", "P": "P", "R": "R", "I": "I"}


def b_value(attributes: Attributes) -> float | None:
    """Diffusion b-value in s/mm², standard (0018,9087) or private, or None."""
    value = attributes.number("DiffusionBValue")
    if value is not None:
        return value
    value = _number(attributes.private(_SIEMENS, 0x0019, 0x0C), "<d")
    if value is None:
        value = _number(attributes.private(_PHILIPS, 0x2001, 0x03), "<f")
    if value is None:
        value = _number(attributes.private(_GE, 0x0043, 0x39), "<d")
        if value is not None and value > 10_000:  # later GE software adds 10⁹ to mark that gradients are combined
            value %= 100_000
    return value


def part(image_type: Sequence[str], attributes: Attributes) -> str:
    """M, P, R or I for magnitude, phase, real, imaginary; empty where nothing tells.

    Args:
        image_type: ImageType from its third value on, upper case.
        attributes: the header.
    """
    told = attributes.text("ComplexImageComponent")
    if told and told.upper() in _PARTS:
        return _PARTS[told.upper()]
    for term in image_type:
        known = _PARTS.get(term) or (_PARTS.get(term[0]) if term[1:2] == "_" else None)
        if known:
            return known
    component = _number(attributes.private(_GE, 0x0043, 0x2F), "<h")
    return _GE_PARTS.get(int(component), "") if component is not None else ""


def _number(value: bytes | str | int | float | None, packed: str) -> float | None:
    """A private value as a number; bytes are text or ``packed``, for implicit VR has no type for private elements."""
    if value is None or value == "" or value == b"":
        return None
    try:
        if isinstance(value, bytes):
            size = struct.calcsize(packed)
            number = struct.unpack(packed, value)[0] if len(value) == size and not _is_text(value) else _text(value)
        else:
            number = float(value)
    except ValueError:
        return None
    return float(number) if math.isfinite(number) else None


def _is_text(value: bytes) -> bool:
    return all(character in b"0123456789+-.eE \\\0" for character in value) and any(value)


def _text(value: bytes) -> float:
    return float(value.decode("ascii", "replace").split("\\")[0].strip(" \0"))
