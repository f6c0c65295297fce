"""Which subjects and voxels a run was tested on, so that runs can be told comparable or not.

Pseudonyms are equal only within one workspace's key. Voxels are compared too: equal ones are the same test set whatever
the pseudonyms, as long as they were prepared alike.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.pair_set import read_pair_set
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import StageRecord
from pipeline.report.outside_methods import OUTSIDE_PAIRS


def tested_on(records: Mapping[str, StageRecord], folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """By track: ``subjects``, sorted pseudonyms of the test split, and ``images``, sorted hashes of its voxels."""
    found = {}
    if "prepare_lesions" in folders:
        found["lesions"] = _summary(_lesion_images(folders["prepare_lesions"]))
    if "prepare_mr_to_ct" in folders:
        outside = records["prepare_mr_to_ct"].stage == OUTSIDE_PAIRS
        volumes = _outside_volumes if outside else _mr_volumes
        found["mr_to_ct"] = _summary(volumes(folders["prepare_mr_to_ct"]))
    return found


def _summary(images: Iterator[tuple[str, npt.NDArray[Any]]]) -> dict[str, Any]:
    subjects, hashes = set(), []
    for subject, voxels in images:
        subjects.add(subject)
        content = np.ascontiguousarray(voxels)
        digest = hashlib.sha256(str(content.shape).encode())
        digest.update(content.data)
        hashes.append(digest.hexdigest()[:16])
    return {"subjects": sorted(subjects), "images": sorted(hashes)}


def _lesion_images(folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    prepared = read_image_set(folder)
    subjects = prepared.table["subject_id"].to_list()
    for row in prepared.rows("test"):
        yield subjects[row], prepared.images[row]


def _mr_volumes(folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    prepared = read_volume_set(folder)
    for row in prepared.volumes("MR", ["test"]):
        yield row["subject_id"], prepared.voxels(row)


def _outside_volumes(folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    pairs = read_pair_set(folder)
    for row in pairs.pairs:
        if row["comparable"]:
            yield row["subject_id"], pairs.volume(row, "ct")
