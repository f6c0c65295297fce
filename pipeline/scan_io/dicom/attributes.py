"""What the DICOM reader asks of a header, whoever parsed it: pydicom, or the quick walk through plain files."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.errors import QuarantineError

_PADDING = " \0\t\r\n\f\v\x1c\x1d\x1e\x1f\x85\xa0"
BY_REPRESENTATION = frozenset({"PixelPaddingValue", "PixelPaddingRangeLimit"})
"""Stored values: signed where PixelRepresentation is 1 (PS3.3 C.7.5.1.1.2), whatever VR a writer chose."""


class Attributes(Protocol):
    """A data set by keyword (PS3.6), values converted as their value representation says.

    Texts come without padding. A value that is absent or empty is ``None`` or ``()``. A value that cannot be converted
    raises `QuarantineError` BAD_VALUE, which names the keyword and never the value.
    """

    def has(self, keyword: str) -> bool:
        """Whether the attribute is there, empty or not."""

    def text(self, keyword: str) -> str | None:
        """First value as text."""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as text."""

    def number(self, keyword: str) -> float | None:
        """First value as a finite number."""

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values as finite numbers."""

    def whole(self, keyword: str) -> int | None:
        """First value as a whole number."""

    def items(self, keyword: str) -> "tuple[Attributes, ...]":
        """Items of a sequence."""

    def private(self, creator: str, group: int, offset: int) -> bytes | str | int | float | None:
        """First value of the private element ``offset`` in the block of ``creator``; raw bytes where it has no type."""


def bad_value(name: str) -> QuarantineError:
    """The refusal of a value that cannot be converted.

    Args:
        name: keyword, or tag of a private element.
    """
    return QuarantineError("BAD_VALUE", f"a {name} that cannot be read", "Export the series again with valid values.")


def as_texts(keyword: str, values: Sequence[Any]) -> tuple[str, ...]:
    """Values as text; ``()`` where all are empty."""
    if any(isinstance(value, bytes) for value in values):
        raise bad_value(keyword)
    texts = tuple("" if value is None else str(value).strip(_PADDING) for value in values)
    return texts if any(texts) else ()


def as_numbers(keyword: str, values: Sequence[Any]) -> tuple[float, ...]:
    """Values as finite floats; ``()`` where there are none or the only one is empty."""
    if not values or (len(values) == 1 and _is_empty(values[0])):
        return ()
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise bad_value(keyword) from None
    if not all(map(math.isfinite, numbers)):
        raise bad_value(keyword)
    return numbers


def as_whole(keyword: str, values: Sequence[Any]) -> int | None:
    """First value as a whole number."""
    numbers = as_numbers(keyword, values[:1])
    if not numbers:
        return None
    if not numbers[0].is_integer():
        raise bad_value(keyword)
    return int(numbers[0])


def as_private(value: Any) -> bytes | str | int | float | None:
    """A private element's first value as a plain type."""
    if value is None:
        return None
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value).strip(_PADDING)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | bytes) and not value.strip())


def by_representation(value: int, *, signed: bool) -> int:
    """A 16-bit stored value as PixelRepresentation means it.

    >>> by_representation(63536, signed=True), by_representation(-2000, signed=False)
    (-2000, 63536)
    """
    if not -0x8000 <= value <= 0xFFFF:
        return value
    value &= 0xFFFF
    return value - 0x10000 if signed and value >= 0x8000 else value
