"""Siemens CSA headers: the private element (0029,xx10) of SIEMENS CSA HEADER, in both of its encodings.

Layout as the nibabel and GDCM projects document it, all numbers little-endian: CSA2 begins with ``SV10`` and four more
bytes; then come the number of tags and 77; a tag is a 64-byte name, its multiplicity, a 4-byte VR, a type code, the
number of items and 77 or 205; an item is four integers and its bytes, padded to a multiple of four.
"""

import struct

_TAG = struct.Struct("<64si4siii")
_ITEM = struct.Struct("<4i")
_MAXIMUM_TAGS = 128
_MAXIMUM_ITEMS = 512


class CSAError(ValueError):
    """The bytes are no CSA header."""


def csa_values(content: bytes, wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Non-empty items of the tags called for.

    Args:
        content: the element.
        wanted: names of tags.

    Raises:
        CSAError: a count or a length leaves the bytes or the bounds of sense.
    """
    second = content[:4] == b"SV10"
    place = 8 if second else 0
    count = _unpack(struct.Struct("<2i"), content, place)[0]
    if not 1 <= count <= _MAXIMUM_TAGS:
        raise CSAError("tags")
    place += 8
    base = -1
    values: dict[str, tuple[str, ...]] = {}
    for _ in range(count):
        name, _, _, _, items, _ = _unpack(_TAG, content, place)
        place += _TAG.size
        if not 0 <= items <= _MAXIMUM_ITEMS:
            raise CSAError("items")
        base = items if base < 0 else base
        texts, place = _items(content, place, items, None if second else base)
        key = _text(name)
        if key in wanted:
            values[key] = texts
    return values


def _items(content: bytes, place: int, count: int, base: int | None) -> tuple[tuple[str, ...], int]:
    """Texts of the items at a place, and the place after them; CSA1 counts lengths from the first tag's item count."""
    texts = []
    for _ in range(count):
        first, length, _, _ = _unpack(_ITEM, content, place)
        place += _ITEM.size
        size = length if base is None else first - base
        if size < 0:  # seen at the end of the items of a CSA1 tag
            break
        if place + size > len(content):
            raise CSAError("length")
        text = _text(content[place : place + size])
        texts += [text] if text else []
        place += (size + 3) // 4 * 4
    return tuple(texts), place


def _unpack(form: struct.Struct, content: bytes, place: int) -> tuple[int, ...]:
    if place + form.size > len(content):
        raise CSAError("end")
    return form.unpack_from(content, place)


def _text(raw: bytes | int) -> str:
    return bytes(raw).split(b"\0")[0].decode("ascii", "replace").strip() if isinstance(raw, bytes) else ""
