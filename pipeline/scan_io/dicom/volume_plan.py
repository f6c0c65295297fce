"""What grouping hands to the reading of pixels: the images of one volume, in plain values."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader, Vector


@dataclass(frozen=True, slots=True)
class DicomPolicy:
    """Choices of the user.

    Attributes:
        gantry_tilt: whether CT stacked off its normal is resampled or refused.
        derived: whether images that their ImageType calls DERIVED are left out.
    """

    gantry_tilt: Literal["correct", "refuse"] = "correct"
    derived: Literal["skip", "keep"] = "skip"


class PlannedFrame(NamedTuple):
    """One image of a volume: the number of its file in the plan, and its place."""

    file: int
    frame: FrameHeader


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """One 3-D image.

    Attributes:
        paths: its files.
        headers: of the files, without frames.
        frames: its images, in no order.
        label: which of the volumes of its series it is, or None where the series is one volume.
        gantry_tilt: see `DicomPolicy`.
    """

    paths: tuple[Path, ...]
    headers: tuple[DicomHeader, ...]
    frames: tuple[PlannedFrame, ...]
    label: str | None = None
    gantry_tilt: Literal["correct", "refuse"] = "correct"

    @property
    def positions(self) -> frozenset[Vector]:
        """Where its images lie, LPS+ mm."""
        return frozenset(planned.frame.position for planned in self.frames)


def without_files(plan: VolumePlan, left_out: AbstractSet[int]) -> VolumePlan | None:
    """The plan without some of its files, or None where nothing remains."""
    kept = [number for number in range(len(plan.paths)) if number not in left_out]
    numbers = {number: place for place, number in enumerate(kept)}
    frames = tuple(
        PlannedFrame(numbers[planned.file], planned.frame) for planned in plan.frames if planned.file in numbers
    )
    if not frames:
        return None
    paths, headers = tuple(plan.paths[number] for number in kept), tuple(plan.headers[number] for number in kept)
    return replace(plan, paths=paths, headers=headers, frames=frames)


@dataclass(frozen=True, slots=True)
class RefusedFiles:
    """Files left out for one reason; the first one names the row."""

    paths: tuple[Path, ...]
    error: QuarantineError


@dataclass(frozen=True, slots=True)
class Grouping:
    """What a set of headers amounts to.

    Attributes:
        plans: volumes, in a fixed order.
        refused: files that are no part of a volume.
        structures: segmentations and structure sets.
    """

    plans: tuple[VolumePlan, ...]
    refused: tuple[RefusedFiles, ...]
    structures: tuple[tuple[Path, DicomHeader], ...]
