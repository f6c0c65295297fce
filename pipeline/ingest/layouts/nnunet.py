"""A raw nnU-Net v2 set: ``imagesTr/<case>_<channel>.nii.gz``, ``labelsTr/<case>.nii.gz``, and ``dataset.json``.

Isensee et al., Nat Methods 18:203, 2021; form after its documentation, dataset_format.md. Every channel is a series of
its own, MR or CT by its name in ``channel_names``. The channels of a case are registered and on one grid by the rules
of nnU-Net: they share a frame of reference, and a case that breaks the rule is refused. A label map is drawn on the
first channel of each modality only, so that a lesion is not counted once for each contrast. A case is a subject.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.errors import InputError, QuarantineError
from pipeline.ingest.dataset_json import FILE_NAME, contrast, dataset_error, lesion_classes, read_dataset_json, table
from pipeline.ingest.found import Found, FoundVolume, Ignored, Layout, Reading
from pipeline.ingest.layouts.label_maps import IMAGE_REFUSED, NOT_LISTED, LabelMap, missing, read_label_maps
from pipeline.ingest.layouts.nifti_cases import NIFTI_SUFFIXES, NiftiCase, of_one_subject, read_cases, with_frame
from pipeline.ingest.lesion_masks import GRID_TOLERANCE_MM
from pipeline.ingest.source_tree import Refusal, SourceFile, SourceTree

LABEL_FOLDERS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
"""Folder of images → folder of their label maps; that of test images need not be there."""

IGNORE = "ignore"
"""Name of the label whose voxels have none."""

_FOLDERS = frozenset({*LABEL_FOLDERS, *LABEL_FOLDERS.values()})
_STEM = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_UNKNOWN_CHANNEL = QuarantineError(
    "UNKNOWN_MODALITY",
    "a channel that by its name is neither MR nor CT",
    "Call it CT, MRI or an MR sequence such as T1w under channel_names.",
)


@dataclass(frozen=True)
class _Channels:
    """Channel number → modality and MR sequence, None where the name does not tell."""

    contrasts: Mapping[int, tuple[str | None, str | None]]
    ending: str


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`."""
    content = read_dataset_json(tree)
    if content is None or not isinstance(content.get("channel_names"), dict) or "file_ending" not in content:
        return None
    images = [file for file in tree.files if _case_and_channel(file) is not None]
    cases = {match[0] for file in images if (match := _case_and_channel(file)) is not None}
    return f"{FILE_NAME} with channel_names and file_ending, {len(images)} images of {len(cases)} cases"


def claims(tree: SourceTree) -> frozenset[str]:
    """Names of the files that this layout knows, none where a tree is not of it."""
    if recognize(tree) is None:
        return frozenset()
    return frozenset(file.name for file in tree.files if file.name == FILE_NAME or file.parts[0] in _FOLDERS)


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`.

    Raises:
        InputError: ``dataset.json`` is not of this form, has regions of several labels, or files are no NIfTI.
    """
    channels, classes, unlabeled = _described(reading)
    labels = {file.name: file for file in reading.tree.files if _is_label(file, channels)}
    cases, refusals = _cases(reading.tree, channels)
    known = {*labels, *(case.file.name for case in cases), *(refusal.names[0] for refusal in refusals)}
    yield Ignored(len(reading.tree.files) - len(known))
    yield from refusals
    maps: list[LabelMap] = []
    for name, members in groupby(read_cases(reading, cases), key=lambda item: _label_name(item[0].file, channels)):
        outcomes = [outcome for _, outcome in members]
        volumes = [outcome for outcome in outcomes if isinstance(outcome, FoundVolume)]
        yield from (outcome for outcome in outcomes if isinstance(outcome, Refusal))
        usable = _on_one_grid(name, volumes)
        yield from usable
        label = labels.pop(name, None)
        drawn = _first_of_each_modality([volume for volume in usable if isinstance(volume, FoundVolume)])
        if label is None:
            yield from [Refusal((name,), missing("a label map"))] if name.startswith("labelsTr/") else []
        elif drawn:
            maps.append(LabelMap(label, drawn[0].scan.geometry, tuple(volume.word for volume in drawn)))
        else:
            yield Refusal((name,), IMAGE_REFUSED)
    yield from (Refusal((name,), missing("a usable image")) for name in labels)
    yield from read_label_maps(reading, maps, classes, unlabeled=unlabeled)


def _described(reading: Reading) -> tuple[_Channels, dict[int, str], frozenset[int]]:
    """Channels, classes, and values without a class of ``dataset.json``."""
    content = read_dataset_json(reading.tree)
    if content is None:
        raise dataset_error(
            f"no JSON object in {FILE_NAME} at the root of the input",
            '"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumor": 1}, "file_ending": ".nii.gz"',
        )
    if "dataset" in content:
        raise dataset_error('a list of files under "dataset"', "files in imagesTr/ and labelsTr/")
    labels = table(content, "labels")
    named = [(value, name) for name, value in labels.items() if name != IGNORE]
    classes, left_out = lesion_classes(named, reading.settings.lesion_classes)
    ignored = labels.get(IGNORE)
    return _channels(content), classes, left_out | frozenset({ignored} if isinstance(ignored, int) else ())


def _channels(content: Mapping[str, Any]) -> _Channels:
    names = table(content, "channel_names")
    ending = content.get("file_ending")
    if not isinstance(ending, str) or ending not in NIFTI_SUFFIXES:
        raise InputError(
            "The images of an nnU-Net set must be NIfTI files.",
            found="another file_ending",
            allowed=" or ".join(sorted(NIFTI_SUFFIXES)),
            change="Convert images and label maps to NIfTI, and correct file_ending.",
        )
    if not names or not all(re.fullmatch("[0-9]{1,4}", number) for number in names):
        raise dataset_error("channel_names that are not numbered", '"channel_names": {"0": "T1w", "1": "T2w"}')
    return _Channels({int(number): contrast(name) for number, name in names.items()}, ending)


def _cases(tree: SourceTree, channels: _Channels) -> tuple[list[NiftiCase], list[Refusal]]:
    """Images to read, channel by channel of each case, and those of no use."""
    cases: list[NiftiCase] = []
    refusals: list[Refusal] = []
    for file in tree.files:
        match = _case_and_channel(file)
        if file.suffix not in NIFTI_SUFFIXES or _is_label(file, channels):
            continue
        if match is None or file.suffix != channels.ending or match[1] not in channels.contrasts:
            refusals.append(Refusal((file.name,), NOT_LISTED))
            continue
        modality, sequence = channels.contrasts[match[1]]
        if modality is None:
            refusals.append(Refusal((file.name,), _UNKNOWN_CHANNEL))
        else:
            cases.append(NiftiCase(file, modality, match[0], sequence))
    cases.sort(key=lambda case: (case.file.parts[0], case.case, case.file.name))
    return cases, refusals


def _on_one_grid(name: str, volumes: Sequence[FoundVolume]) -> list[FoundVolume | Refusal]:
    """The channels of a case in one frame of reference, or refusals of all of them."""
    grids = [volume.scan.geometry for volume in volumes]
    if all(grid.matches(grids[0], GRID_TOLERANCE_MM) for grid in grids):
        return [with_frame(volume, f"nnunet\0{name}") for volume in of_one_subject(volumes)]
    found = f"{len(volumes)} channels of shapes {', '.join(str(shape) for shape in sorted({g.shape for g in grids}))}"
    refusal = QuarantineError("CHANNEL_GRID_MISMATCH", found, "Resample every channel of a case to one grid.")
    return [Refusal(volume.names, refusal) for volume in volumes]


def _first_of_each_modality(volumes: Sequence[FoundVolume]) -> list[FoundVolume]:
    first: dict[str | None, FoundVolume] = {}
    for volume in volumes:
        first.setdefault(volume.scan.modality, volume)
    return list(first.values())


def _case_and_channel(file: SourceFile) -> tuple[str, int] | None:
    """Case and channel of an image, None for other files."""
    match = _STEM.fullmatch(file.stem) if len(file.parts) == 2 and file.parts[0] in LABEL_FOLDERS else None
    return None if match is None else (match["case"], int(match["channel"]))


def _label_name(image: SourceFile, channels: _Channels) -> str:
    """Name of the label map of an image's case."""
    return f"{LABEL_FOLDERS[image.parts[0]]}/{image.stem[: -len('_0000')]}{channels.ending}"


def _is_label(file: SourceFile, channels: _Channels) -> bool:
    return len(file.parts) == 2 and file.parts[0] in LABEL_FOLDERS.values() and file.suffix == channels.ending


LAYOUT = Layout(recognize, read)
