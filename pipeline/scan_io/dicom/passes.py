"""Images that repeat the same positions told apart into volumes: by time index, acquisition, or order of making.

Nothing is guessed: where no rule separates the repeats with certainty they stay together, and the reader of the pixels
drops exact copies or refuses the volume.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.scan_io.dicom.header import FrameHeader

POSITION_ROUNDING_MM = 0.01
"""Positions this close are one; scanners write them rounded to as few as two decimals."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.

    Attributes:
        file: number of its file.
        frame: its place.
        uid: SOPInstanceUID of its file; equal ones with equal frames are copies.
        lost: whether its pixels are known to be damaged.
    """

    file: int
    frame: FrameHeader
    uid: str
    lost: bool = False

    @property
    def identity(self) -> tuple[str, int, int]:
        """Equal for copies of one image."""
        return self.uid or str(self.file), self.frame.frame, self.frame.tile


@dataclass(frozen=True, slots=True)
class Pass:
    """One image for each position.

    Attributes:
        label: e.g. "time 2", empty where there is one pass.
        entries: its images; copies, and repeats that nothing tells apart, are in one pass.
        positions: how many positions it has.
        missing: how many positions it lacks that complete passes have.
    """

    label: str
    entries: tuple[Entry, ...]
    positions: int
    missing: int = 0


_Order: TypeAlias = tuple[int, int]


def position_numbers(frames: Sequence[FrameHeader]) -> list[int]:
    """Number of each frame's position along the normal of the first frame, from 0; equal for equal positions."""
    a, b, c, d, e, f = frames[0].orientation
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    along = [frame.position[0] * x + frame.position[1] * y + frame.position[2] * z for frame in frames]
    numbers = [0] * len(frames)
    number, last = -1, float("-inf")
    for index in sorted(range(len(frames)), key=along.__getitem__):
        if along[index] - last >= POSITION_ROUNDING_MM:
            number += 1
        last = along[index]
        numbers[index] = number
    return numbers


def passes(entries: Sequence[Entry]) -> list[Pass]:
    """Split images of one contrast into passes over their positions, in order of time."""
    places = dict(zip(map(id, entries), position_numbers([entry.frame for entry in entries]), strict=True))
    return _split(entries, places, (("time", _time), ("time", _acquisition)))


_Key: TypeAlias = Callable[[FrameHeader], int | None]


def _time(frame: FrameHeader) -> int | None:
    return frame.time_index


def _acquisition(frame: FrameHeader) -> int | None:
    return frame.acquisition_number


def _split(entries: Sequence[Entry], places: dict[int, int], keys: Sequence[tuple[str, _Key]]) -> list[Pass]:
    if not _repeats(entries, places):
        return [_pass("", entries, places)]
    if not keys:
        return _by_order(entries, places)
    word, key = keys[0]
    groups: dict[int | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[key(entry.frame)].append(entry)
    if None in groups or len(groups) == 1:
        return _split(entries, places, keys[1:])
    found: list[Pass] = []
    for number, group in enumerate((groups[value] for value in sorted(groups, key=_as_number)), start=1):
        for part in _split(group, places, keys[1:]):
            label = f"{word} {number}; {part.label}" if part.label else f"{word} {number}"
            found.append(Pass(label, part.entries, part.positions))
    return _with_missing(found, places)


def _as_number(value: int | None) -> int:
    return -1 if value is None else value


def _repeats(entries: Sequence[Entry], places: dict[int, int]) -> bool:
    """Whether two different images share a position."""
    seen: dict[int, tuple[str, int, int]] = {}
    return any(seen.setdefault(places[id(entry)], entry.identity) != entry.identity for entry in entries)


def _by_order(entries: Sequence[Entry], places: dict[int, int]) -> list[Pass]:
    """Passes by acquisition and instance number: whole passes one after another, or all repeats of each position."""
    orders: dict[_Order, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.frame.instance_number is None:
            return [_pass("", entries, places)]
        orders[entry.frame.acquisition_number or 0, entry.frame.instance_number].append(entry)
    if any(len({entry.identity for entry in group}) > 1 for group in orders.values()):
        return [_pass("", entries, places)]
    walk = [orders[order] for order in sorted(orders)]
    groups = _consecutive(walk, places) or _interleaved(walk, places)
    if groups is None:
        return [_pass("", entries, places)]
    made = [_pass(f"repeat {number}", group, places) for number, group in enumerate(groups, start=1)]
    return _with_missing(made, places)


def _consecutive(walk: Sequence[Sequence[Entry]], places: dict[int, int]) -> list[list[Entry]] | None:
    """Passes made one after another, the last one perhaps cut short; None where another one is incomplete."""
    groups: list[list[Entry]] = []
    seen: set[int] = set()
    every = {places[id(copies[0])] for copies in walk}
    for copies in walk:
        place = places[id(copies[0])]
        if not groups or place in seen:
            if groups and seen != every:
                return None
            groups.append([])
            seen = set()
        seen.add(place)
        groups[-1] += copies
    return groups


def _interleaved(walk: Sequence[Sequence[Entry]], places: dict[int, int]) -> list[list[Entry]] | None:
    """Passes of which all repeats of a position were numbered before those of the next; None otherwise."""
    columns: list[list[Sequence[Entry]]] = []
    done: set[int] = set()
    current = -1
    for copies in walk:
        place = places[id(copies[0])]
        if place != current:
            if place in done:
                return None
            done.add(place)
            columns.append([])
            current = place
        columns[-1].append(copies)
    if len({len(column) for column in columns}) != 1:
        return None
    return [[entry for copies in row for entry in copies] for row in zip(*columns, strict=True)]


def _with_missing(found: list[Pass], places: dict[int, int]) -> list[Pass]:
    """Passes that lack positions which complete ones have; separate stacks with positions of their own lack none."""
    sets = [{places[id(entry)] for entry in item.entries} for item in found]
    full = max(sets, key=len)
    return [
        Pass(item.label, item.entries, item.positions, len(full - own) if own < full else 0)
        for item, own in zip(found, sets, strict=True)
    ]


def _pass(label: str, entries: Sequence[Entry], places: dict[int, int]) -> Pass:
    return Pass(label, tuple(entries), len({places[id(entry)] for entry in entries}))
