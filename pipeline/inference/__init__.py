"""Translation of whole volumes: overlapping windows, planes, mirror images and networks, with memory for one slice.

Each slice is cut into windows of the training patch's side, so that instance normalization sees what it saw in
training; their answers are blended (`windows`). A volume can be looked at in three planes and mirrored (`views`), by
several networks (`members`); the mean of all answers is the result, their spread the uncertainty (`volume`). What a
whole volume needs lies in files, so that memory does not grow with it.
"""

from pipeline.inference.members import Member
from pipeline.inference.views import SourceVolume
from pipeline.inference.volume import VolumeMaps, pictures_of, release_pages, translate_slices, translate_volume
from pipeline.inference.windows import WindowPlan

__all__ = [
    "Member",
    "SourceVolume",
    "VolumeMaps",
    "WindowPlan",
    "pictures_of",
    "release_pages",
    "translate_slices",
    "translate_volume",
]
