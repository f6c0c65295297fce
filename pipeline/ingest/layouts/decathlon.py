"""A set in the form of the Medical Segmentation Decathlon: ``dataset.json`` lists images and their label maps.

Antonelli et al., Nat Commun 13:4128, 2022. Each label above 0 is a lesion class, organs too; ``ingest.lesion_classes``
names those that are meant. Training images come with their labels, as do those of a list ``validation``, which MONAI
reads too; test images may have one. A file name is its subject. Sets of several modalities store them in one 4-D file;
these are refused, for such a file does not say how its channels are to be told apart.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import InputError
from pipeline.ingest.dataset_json import FILE_NAME, contrast, dataset_error, lesion_classes, read_dataset_json, table
from pipeline.ingest.found import Found, FoundVolume, Ignored, Layout, Reading
from pipeline.ingest.layouts.label_maps import IMAGE_REFUSED, NOT_LISTED, LabelMap, missing, read_label_maps
from pipeline.ingest.layouts.nifti_cases import NIFTI_SUFFIXES, NiftiCase, read_cases
from pipeline.ingest.source_tree import Refusal, SourceTree
from pipeline.ingest.table_files import tidy_path

FOLDERS = frozenset({"imagesTr", "imagesTs", "labelsTr", "labelsTs"})
"""Folders of such a set."""

_ENTRIES = '"training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], "test": ["./imagesTs/b…"]'


def recognize(tree: SourceTree) -> str | None:
    """See `Layout.recognize`."""
    content = read_dataset_json(tree)
    if content is None or not isinstance(content.get("training"), list) or "modality" not in content:
        return None
    test = content.get("test")
    tests = len(test) if isinstance(test, list) else 0
    return f"{FILE_NAME} with modality, and lists of {len(content['training'])} training and {tests} test images"


def claims(tree: SourceTree) -> frozenset[str]:
    """Names of the files that this layout knows, none where a tree is not of it."""
    if recognize(tree) is None:
        return frozenset()
    return frozenset(file.name for file in tree.files if file.name == FILE_NAME or file.parts[0] in FOLDERS)


def read(reading: Reading) -> Iterator[Found]:
    """See `Layout.read`.

    Raises:
        InputError: ``dataset.json`` is not of this form, or the set has several modalities.
    """
    content = read_dataset_json(reading.tree)
    if content is None:
        raise dataset_error(f"no JSON object in {FILE_NAME} at the root of the input", _ENTRIES)
    modality, sequence = _modality(content)
    classes, left_out = lesion_classes(table(content, "labels").items(), reading.settings.lesion_classes)
    labels = _listed(content)
    files = reading.tree.named()
    known = {*labels, *(label for label in labels.values() if label is not None)}
    strays = [file for file in reading.tree.files if file.suffix in NIFTI_SUFFIXES and file.name not in known]
    yield Ignored(sum(name not in known for name in files) - len(strays))
    yield from (Refusal((file.name,), NOT_LISTED) for file in strays)
    yield from (Refusal((name,), missing("a listed file")) for name in sorted(known - set(files)))
    images = [files[name] for name in labels if name in files]
    cases = [NiftiCase(file, modality, file.stem, sequence) for file in images]
    maps = []
    for case, outcome in read_cases(reading, cases):
        yield outcome
        label = files.get(labels[case.file.name] or "")
        if label is not None and isinstance(outcome, FoundVolume):
            maps.append(LabelMap(label, outcome.scan.geometry, (outcome.word,)))
        elif label is not None:
            yield Refusal((label.name,), IMAGE_REFUSED)
    yield from read_label_maps(reading, maps, classes, unlabeled=left_out)


def _modality(content: Mapping[str, Any]) -> tuple[str, str | None]:
    """Modality and MR sequence of the set."""
    names = list(table(content, "modality").values())
    if len(names) != 1:
        raise InputError(
            "A Decathlon set must have one modality, and 3-D images.",
            found=f"{len(names)} modalities, which such a set stores in 4-D images",
            allowed="one modality",
            change="Write every channel to 3-D files of its own, as an nnU-Net set has them.",
        )
    modality, sequence = contrast(names[0])
    if modality is None:
        raise dataset_error(
            "a modality that by its name is neither MR nor CT", 'CT, MRI, or an MR sequence, e.g. {"0": "T1w"}'
        )
    return modality, sequence


def _listed(content: Mapping[str, Any]) -> dict[str, str | None]:
    """Image → label map of the training and validation lists, → label map or None of the test list."""
    lists = {name: content.get(name, []) for name in ("training", "validation", "test")}
    if not all(isinstance(entries, list) for entries in lists.values()):
        raise dataset_error("no lists of training and test images", _ENTRIES)
    labels: dict[str, str | None] = {}
    for name, entries in lists.items():
        for number, entry in enumerate(entries, start=1):
            image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
            labeled = isinstance(label, str) or (name == "test" and label is None)
            if not isinstance(image, str) or not labeled or tidy_path(image) in labels:
                missing_part = "an image" if name == "test" else "image and label"
                found = f"{name} entry {number} without {missing_part}, or with the image of another"
                raise dataset_error(found, _ENTRIES)
            labels[tidy_path(image)] = tidy_path(label) if isinstance(label, str) else None
    return labels


LAYOUT = Layout(recognize, read)
