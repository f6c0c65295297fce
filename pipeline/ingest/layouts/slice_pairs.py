"""Slices as gray images: ``MR/<case><slice>.png`` and ``CT/<case><slice>.png``, slice a number of three digits.

Images of the same name in both folders are registered to each other. There is no geometry and no HU: values are gray
levels. The case is the subject.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.ingest.found import Found, FoundImage, Ignored, Layout, Reading
from pipeline.ingest.images import IMAGE_SUFFIXES, read_images
from pipeline.ingest.isolated import CHUNK_FILES, parse_each, spread_outcomes
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree

MODALITIES = ("MR", "CT")
_STEM = re.compile(r"(?P<case>.+?)[-_ ]?(?P<slice>\d{3})")


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`."""
    images = [file for file in tree.files if file.suffix in IMAGE_SUFFIXES and len(file.parts) > 1]
    folders = {file.parts[0] for file in images}
    if not set(MODALITIES) <= folders or not all(_is_slice(file) for file in images):
        return None
    stems = {modality: {file.stem for file in images if file.parts[0] == modality} for modality in MODALITIES}
    both = len(stems["MR"] & stems["CT"])
    return f"{len(stems['MR'])} images in MR/ and {len(stems['CT'])} in CT/, {both} of equal name"


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`."""
    images = [file for file in reading.tree.files if file.suffix in IMAGE_SUFFIXES]
    slices = {file.path: file for file in images if _is_slice(file)}
    yield Ignored(len(reading.tree.files) - len(images))
    for file in images:
        if file.path not in slices:
            advice = "Put slices into MR/ or CT/ and name them <case><3-digit slice>."
            yield Refusal((file.name,), QuarantineError("NO_CASE", "an image without case and slice number", advice))
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    accepted: list[tuple[SourceFile, NDArray[Any]]] = []
    parse = partial(parse_each, read_images, limits=reading.limits)
    for count, outcome in enumerate(spread_outcomes(reading.spread, parse, CHUNK_FILES, list(slices)), start=1):
        file = slices[outcome.task]
        if outcome.result is None or outcome.result.ndim != 2:
            yield Refusal((file.name,), outcome.refusal or _color())
        else:
            shapes[file.parts[0], file.stem] = outcome.result.shape
            accepted.append((file, outcome.result))
        reading.progress("images read", count, len(slices))
    for file, pixels in accepted:
        twins = [shapes.get((modality, file.stem)) for modality in MODALITIES]
        if None not in twins and twins[0] != twins[1]:
            yield Refusal((file.name,), _unequal(twins))
        else:
            yield _found(file, pixels, paired=None not in twins)


def _found(file: SourceFile, pixels: NDArray[Any], *, paired: bool) -> FoundImage:
    case, number = _case_and_slice(file.stem)
    return FoundImage(
        pixels,
        "slice_pairs",
        f"image\0{file.name}",
        (file.name,),
        subject_word=f"case {case}",
        subject_source="case",
        modality=file.parts[0],
        slice_index=number,
        pair_word=f"pair\0{file.stem}" if paired else None,
    )


def _is_slice(file: SourceFile) -> bool:
    return len(file.parts) == 2 and file.parts[0] in MODALITIES and _STEM.fullmatch(file.stem) is not None


def _case_and_slice(stem: str) -> tuple[str, int]:
    """Case and slice number of a stem.

    >>> _case_and_slice("20113"), _case_and_slice("1BA001-045")
    (('20', 113), ('1BA001', 45))
    """
    match = _STEM.fullmatch(stem)
    if match is None:
        raise ValueError(f"a stem of case and three digits is needed, found {stem!r}")
    return match["case"], int(match["slice"])


def _color() -> QuarantineError:
    return QuarantineError("UNSUPPORTED_COLOR", "a color image", "Convert to gray.")


def _unequal(shapes: list[tuple[int, ...] | None]) -> QuarantineError:
    found = f"MR of {shapes[0]} and CT of {shapes[1]} pixels"
    return QuarantineError("PAIR_SIZE_MISMATCH", found, "Resample both to one grid.")


LAYOUT = Layout(recognize, read)
