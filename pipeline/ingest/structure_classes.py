"""Which segments and regions of interest are lesions, and of which class; runs in the parsing process.

A table decides alone where it speaks of a file, else ``ingest.lesion_classes`` does. Without either a segment is called
by the term of its code; labels and names are free text, may hold anything, and never become a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import QuarantineError
from pipeline.ingest.allow_list import is_class_name
from pipeline.ingest.lesion_classes import first_class
from pipeline.scan_io.segmentation import Segment
from pipeline.scan_io.structure_set import ListedRoi

MAP_ADVICE = "Name it in ingest.lesion_classes, with the class it becomes."


@dataclass(frozen=True)
class Choice:
    """A structure that a table gives a class.

    Attributes:
        structure: its number, or else its label or name.
        lesion_class: what it is.
        place: where the table says so, e.g. ``line 2``.
    """

    structure: str
    lesion_class: str
    place: str


def segment_classes(
    listed: Sequence[Segment],
    mapping: Mapping[str, str] | None,
    chosen: Sequence[Choice],
    refusals: list[QuarantineError],
) -> dict[int, str]:
    """Class of each segment that has one: by the table, else the mapping, else the term of its code."""
    if chosen:
        return _chosen_classes({segment.number: segment.label for segment in listed}, chosen, refusals)
    if mapping is None:
        terms = {segment.number: segment.term for segment in listed}
        classes = {number: term for number, term in terms.items() if term is not None and is_class_name(term)}
        unknown = len(listed) - len(classes)
        if unknown:
            found = f"{unknown} of {len(listed)} segments without a code of SNOMED CT or DICOM that names them"
            refusals.append(QuarantineError("UNMAPPED_STRUCTURE", found, MAP_ADVICE))
        return classes
    mapped = {segment.number: first_class(segment.names, mapping) for segment in listed}
    classes = {number: name for number, name in mapped.items() if name is not None}
    if not classes:
        refusals.append(_none_mapped(len(listed), "segments"))
    return classes


def roi_classes(
    regions: Sequence[ListedRoi],
    mapping: Mapping[str, str] | None,
    chosen: Sequence[Choice],
    refusals: list[QuarantineError],
) -> dict[int, str]:
    """Class of each region that has one by the table or the mapping; names are free text and never become a class.

    Raises:
        QuarantineError: UNMAPPED_STRUCTURE.
    """
    if chosen:
        return _chosen_classes({roi.number: roi.name for roi in regions}, chosen, refusals)
    if mapping is None:
        found = f"{len(regions)} structures, and no ingest.lesion_classes to tell what they are"
        raise QuarantineError("UNMAPPED_STRUCTURE", found, MAP_ADVICE)
    mapped = {roi.number: first_class([roi.name], mapping) for roi in regions}
    classes = {number: name for number, name in mapped.items() if name is not None}
    if not classes:
        raise _none_mapped(len(regions), "structures")
    return classes


def _chosen_classes(
    names: Mapping[int, str], chosen: Sequence[Choice], refusals: list[QuarantineError]
) -> dict[int, str]:
    """Class of each structure that a table names by number, else by label or name, case not counted."""
    classes: dict[int, str] = {}
    for choice in chosen:
        word = choice.structure.strip().casefold()
        numbers = [number for number in names if str(number) == word]
        numbers = numbers or [number for number, name in names.items() if name.strip().casefold() == word]
        if len(numbers) == 1 and classes.setdefault(numbers[0], choice.lesion_class) == choice.lesion_class:
            continue
        what = f"{len(numbers)} structures of {len(names)} with the number or name that it tells"
        if len(numbers) == 1:
            what = "a structure that an earlier line gives another class"
        advice = "Correct the line; a number is a Segment Number or ROI Number."
        refusals.append(QuarantineError("STRUCTURE_ABSENT", f"{choice.place}: {what}", advice))
    return classes


def _none_mapped(count: int, what: str) -> QuarantineError:
    return QuarantineError("UNMAPPED_STRUCTURE", f"{count} {what}, none of them in ingest.lesion_classes", MAP_ADVICE)
