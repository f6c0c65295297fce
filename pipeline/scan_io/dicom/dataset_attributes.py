"""`Attributes` of a data set that pydicom has parsed."""

from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue

from pipeline.scan_io.dicom.attributes import (
    BY_REPRESENTATION,
    Attributes,
    as_numbers,
    as_private,
    as_texts,
    as_whole,
    bad_value,
    by_representation,
)


class DatasetAttributes:
    """`Attributes` of a pydicom data set.

    Args:
        dataset: as parsed.
    """

    __slots__ = ("_dataset", "_signed")

    def __init__(self, dataset: pydicom.Dataset, *, signed: bool | None = None) -> None:
        self._dataset = dataset
        self._signed = signed

    def has(self, keyword: str) -> bool:
        """See `Attributes.has`."""
        return _tag(keyword) in self._dataset

    def text(self, keyword: str) -> str | None:
        """See `Attributes.text`."""
        return (self.texts(keyword) or ("",))[0] or None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """See `Attributes.texts`."""
        values = self._values(keyword)
        if any(isinstance(value, pydicom.Dataset) for value in values):
            raise bad_value(keyword)
        return as_texts(keyword, values)

    def number(self, keyword: str) -> float | None:
        """See `Attributes.number`."""
        return (as_numbers(keyword, self._values(keyword)[:1]) or (None,))[0]

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """See `Attributes.numbers`."""
        return as_numbers(keyword, self._values(keyword))

    def whole(self, keyword: str) -> int | None:
        """See `Attributes.whole`."""
        values = self._values(keyword)
        if keyword in BY_REPRESENTATION and values:
            return self._stored(keyword, values[0])
        return as_whole(keyword, values)

    def items(self, keyword: str) -> tuple[Attributes, ...]:
        """See `Attributes.items`."""
        values = self._values(keyword)
        if not all(isinstance(value, pydicom.Dataset) for value in values):
            raise bad_value(keyword)
        return tuple(DatasetAttributes(value) for value in values)

    def private(self, creator: str, group: int, offset: int) -> bytes | str | int | float | None:
        """See `Attributes.private`."""
        name = f"private element ({group:04X},xx{offset:02X})"
        try:
            block = self._dataset.private_block(group, creator)
            element = self._dataset.get(block.get_tag(offset))
        except KeyError:
            return None
        except Exception as error:  # pydicom raises many types on malformed values
            raise _wrapped(error, name) from None
        values = _converted(element, name)
        return None if not values or isinstance(values[0], pydicom.Dataset) else as_private(values[0])

    def _values(self, keyword: str) -> list[Any]:
        try:
            element = self._dataset.get(_tag(keyword))
        except Exception as error:  # pydicom raises many types on malformed values
            raise _wrapped(error, keyword) from None
        return _converted(element, keyword)

    def _stored(self, keyword: str, value: Any) -> int | None:
        """A stored value of 16 bits, signed as the pixels are."""
        if isinstance(value, bytes):
            if len(value) < 2:
                raise bad_value(keyword)
            value = int.from_bytes(value[:2], "little" if self._dataset.original_encoding[1] else "big")
        number = as_whole(keyword, (value,))
        return None if number is None else by_representation(number, signed=self.whole("PixelRepresentation") == 1)


def _converted(element: Any, name: str) -> list[Any]:
    if element is None:
        return []
    try:
        value = element.value
    except Exception as error:  # as above
        raise _wrapped(error, name) from None
    if isinstance(value, MultiValue | pydicom.Sequence | list | tuple):
        return list(value)
    return [] if value is None else [value]


def _wrapped(error: Exception, name: str) -> BaseException:
    return error if isinstance(error, MemoryError) else bad_value(name)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)
