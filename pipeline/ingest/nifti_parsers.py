"""What runs in the parsing process for image files (NIfTI, MetaImage, NRRD); imports the readers alone."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.scan_io import STRICT, ImagePolicy, Scan, read_image


@dataclass(frozen=True)
class ImageTask:
    """One image file to read.

    Attributes:
        path: where it lies.
        policy: what to do where the file leaves a choice.
        modality: MR or CT where the layout tells it.
    """

    path: Path
    policy: ImagePolicy = STRICT
    modality: str | None = None


def read_image_file(task: ImageTask) -> Scan:
    """One volume; see `read_image`."""
    return read_image(task.path, task.policy, task.modality)
