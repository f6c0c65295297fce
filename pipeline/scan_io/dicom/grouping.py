"""Headers to volumes: pure, no file is opened.

Images of one volume share patient, study and series, matrix, orientation and pixel spacing, and the contrast: image
type, echo and b-value. Images that repeat positions are told apart by `passes`. Each volume of a series of several gets
a label, e.g. "echo 2" or "b 1000; time 3", made of numbers and defined terms.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader
from pipeline.scan_io.dicom.passes import Entry, Pass, passes
from pipeline.scan_io.dicom.volume_plan import DicomPolicy, Grouping, PlannedFrame, RefusedFiles, VolumePlan

Files = Sequence[tuple[Path, DicomHeader]]

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of direction cosines inside one volume."""

SPACING_TOLERANCE = 1e-4
"""Largest relative difference of pixel spacings inside one volume."""

_TERMS = frozenset(
    {"W", "F", "IP", "OP", "WATER", "FAT", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "ADC", "TRACEW", "FA", "T1", "T2"}
    | {"M", "P", "R", "I", "B0", "PHASE", "MAP", "FFE", "SE", "IR", "TSE"}
)
"""Values of ImageType that a label may quote."""


@dataclass(frozen=True, slots=True)
class _Volume:
    """One pass with the words that tell it from the others of its series."""

    words: tuple[str, ...]
    content: Pass


def group_headers(files: Files, policy: DicomPolicy) -> Grouping:
    """Tell which images make which volume.

    Args:
        files: paths with headers, in a fixed order.
        policy: choices of the user.

    Returns:
        Plans in the order of the first file of each series; refused files: excluded ones by series and reason, damaged
        ones each by itself, volumes that lack images.
    """
    refused: list[RefusedFiles] = []
    excluded: dict[tuple[str, tuple[str, str, str]], list[Path]] = defaultdict(list)
    series: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, (path, header) in enumerate(files):
        if header.kind not in ("image", "other"):
            continue
        refusal = _DERIVED if header.derived and policy.derived == "skip" else header.refusal
        if refusal is not None and (not header.damaged or refusal is _DERIVED):
            excluded[header.facts.series_uid or str(path), refusal].append(path)
            continue
        if header.error is not None:
            refused.append(RefusedFiles((path,), header.error))
        series[_series_key(path, header)].append(number)
    refused += [RefusedFiles(tuple(paths), QuarantineError(*refusal)) for (_, refusal), paths in excluded.items()]
    plans: list[VolumePlan] = []
    for numbers in series.values():
        made, lacking = _plans(files, numbers, policy)
        plans += made
        refused += lacking
    structures = tuple((path, header) for path, header in files if header.kind in ("segmentation", "structure_set"))
    return Grouping(tuple(plans), tuple(refused), structures)


_DERIVED = (
    "DERIVED",
    "ImageType begins with DERIVED",
    "Set ingest.derived=keep to read images that were computed from others.",
)


def _series_key(path: Path, header: DicomHeader) -> tuple[str, ...]:
    facts = header.facts
    return facts.patient_id or "", facts.study_uid or "", facts.series_uid or str(path), header.modality


def _plans(files: Files, numbers: Sequence[int], policy: DicomPolicy) -> tuple[list[VolumePlan], list[RefusedFiles]]:
    """Volumes of one series, and what is lacking."""
    stacks = _stacks(files, numbers)
    volumes: list[_Volume] = []
    for rank, stack in enumerate(stacks, start=1):
        word = f"stack {rank}" if len(stacks) > 1 else ""
        volumes += [_Volume((word, *volume.words), volume.content) for volume in _volumes(stack)]
    plans: list[VolumePlan] = []
    refused: list[RefusedFiles] = []
    for contrast in _single_places(volumes):
        volumes = [volume for volume in volumes if all(volume is not member for member in contrast)]
        paths = tuple(dict.fromkeys(files[entry.file][0] for volume in contrast for entry in volume.content.entries))
        found = f"{len(contrast)} images of one position"
        refused.append(RefusedFiles(paths, QuarantineError("NOT_A_VOLUME", found, "Send the slices beside it.")))
    for volume in volumes:
        paths = tuple(dict.fromkeys(files[entry.file][0] for entry in volume.content.entries if not entry.lost))
        if not paths:
            continue
        error = _lacking(volume.content)
        if error is not None:
            refused.append(RefusedFiles(paths, error))
            continue
        label = "; ".join(word for word in volume.words if word) or None
        plans.append(_plan(files, volume.content.entries, label, policy))
    return plans, refused


def _single_places(volumes: Sequence[_Volume]) -> list[list[_Volume]]:
    """Images of one contrast that were made over and over at a single position, e.g. to watch a bolus arrive."""
    contrasts: dict[tuple[str, ...], list[_Volume]] = defaultdict(list)
    for volume in volumes:
        contrasts[volume.words[:-1]].append(volume)
    return [
        members
        for members in contrasts.values()
        if len(members) > 1 and all(volume.content.positions == 1 for volume in members)
    ]


def _lacking(content: Pass) -> QuarantineError | None:
    """Why a pass is no whole volume, or None: images that are damaged, or that complete passes have."""
    sound = {entry.frame.position for entry in content.entries if not entry.lost}
    lost = {entry.frame.position for entry in content.entries if entry.lost} - sound
    if lost:
        found = f"{len(lost)} of {content.positions} slices are damaged"
        return QuarantineError("MISSING_SLICE", found, "Replace the damaged files; each has a row of its own.")
    if content.missing:
        found = (
            f"{content.positions} slices, where other volumes of the series have {content.positions + content.missing}"
        )
        return QuarantineError("MISSING_SLICE", found, "Send the missing slices.")
    return None


def _plan(files: Files, entries: Sequence[Entry], label: str | None, policy: DicomPolicy) -> VolumePlan:
    numbers = list(dict.fromkeys(entry.file for entry in entries if not entry.lost))
    places = {number: place for place, number in enumerate(numbers)}
    return VolumePlan(
        paths=tuple(files[number][0] for number in numbers),
        headers=tuple(files[number][1]._replace(frames=()) for number in numbers),
        frames=tuple(PlannedFrame(places[entry.file], entry.frame) for entry in entries if not entry.lost),
        label=label,
        gantry_tilt=policy.gantry_tilt,
    )


def _stacks(files: Files, numbers: Sequence[int]) -> list[list[Entry]]:
    """Images by matrix, orientation and pixel spacing."""
    stacks: dict[int, list[Entry]] = defaultdict(list)
    known: dict[tuple[object, ...], int] = {}
    first: list[tuple[tuple[int, int, int], FrameHeader]] = []
    for number in numbers:
        header = files[number][1]
        pixels = header.pixels
        matrix = (0, 0, 0) if pixels is None else (pixels.rows, pixels.columns, header.tiles_across)
        for frame in header.frames:
            key = (matrix, frame.orientation, frame.pixel_spacing, frame.stack)
            if key not in known:
                known[key] = _stack_number(first, matrix, frame)
            stacks[known[key]].append(Entry(number, frame, header.sop_instance_uid, header.damaged))
    return list(stacks.values())


def _stack_number(
    first: list[tuple[tuple[int, int, int], FrameHeader]], matrix: tuple[int, int, int], frame: FrameHeader
) -> int:
    """Number of the stack that a frame belongs to; a new one joins ``first``."""
    for number, (other_matrix, other) in enumerate(first):
        if matrix == other_matrix and frame.stack == other.stack and _alike(frame, other):
            return number
    first.append((matrix, frame))
    return len(first) - 1


def _alike(frame: FrameHeader, other: FrameHeader) -> bool:
    turned = max(abs(a - b) for a, b in zip(frame.orientation, other.orientation, strict=True))
    scaled = max(abs(a / b - 1) for a, b in zip(frame.pixel_spacing, other.pixel_spacing, strict=True))
    return turned <= ORIENTATION_TOLERANCE and scaled <= SPACING_TOLERANCE


def _volumes(stack: Sequence[Entry]) -> list[_Volume]:
    """Volumes of images that share a grid: by contrast, then by pass."""
    contrasts: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in stack:
        contrasts[_contrast(entry.frame)].append(entry)
    words = _words(list(contrasts))
    return [
        _Volume((*words[key], content.label), content)
        for key, entries in contrasts.items()
        for content in passes(entries)
    ]


def _contrast(frame: FrameHeader) -> tuple[object, ...]:
    """What one volume has one of: image type and part, echo, b-value."""
    kind = tuple(term for term in frame.image_type if term != "MOSAIC")
    time = None if frame.echo_time_ms is None else round(frame.echo_time_ms, 2)
    b_value = None if frame.b_value is None else round(frame.b_value)
    return (kind, frame.part), (frame.echo_number, time), b_value


def _words(keys: Sequence[tuple[object, ...]]) -> dict[tuple[object, ...], tuple[str, ...]]:
    """Words that tell contrasts apart; empty for what they have in common."""
    kinds, echoes, weights = (list(dict.fromkeys(key[axis] for key in keys)) for axis in range(3))
    names = [
        dict(zip(kinds, _kind_words(kinds), strict=True)),
        {echo: f"echo {rank}" for rank, echo in enumerate(sorted(echoes, key=_echo_order), start=1)},
        {weight: f"b {'unknown' if weight is None else weight}" for weight in weights},
    ]
    return {key: tuple(names[axis][key[axis]] if len(names[axis]) > 1 else "" for axis in range(3)) for key in keys}


def _echo_order(echo: object) -> tuple[float, ...]:
    number, time = echo if isinstance(echo, tuple) else (None, None)
    return (-1.0 if time is None else float(time), -1.0 if number is None else float(number))


def _kind_words(kinds: Sequence[object]) -> list[str]:
    """Part or distinguishing terms of each image type; a number where those do not tell."""
    described = []
    for kind in kinds:
        terms, part = kind if isinstance(kind, tuple) else ((), "")
        described.append((part, [term for term in terms if term in _TERMS]))
    parts = Counter(part for part, _ in described)
    if all(part and parts[part] == 1 for part, _ in described):
        return [f"part {part}" for part, _ in described]
    common = set.intersection(*(set(terms) for _, terms in described)) if described else set()
    names = [" ".join(term for term in terms if term not in common) for _, terms in described]
    if all(names) and len(set(names)) == len(names):
        return [f"part {name}" for name in names]
    return [f"type {rank}" for rank in range(1, len(kinds) + 1)]
