"""What the DICOM reader asks of a header, whoever parsed it: pydicom, or the quick walk through plain files."""

from typing import Protocol


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
