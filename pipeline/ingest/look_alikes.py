"""Series of different subjects that show the same: one patient under two ids, or a copy with other intensities.

Three slices through the middle of the volume in canonical orientation, each reduced to 32 × 32 and standardized, stand
for it; two volumes look alike when all three pairs of slices correlate. That is blind to scaling and offset of
intensities and to shifts of a voxel, and costs nothing beside the reading. Nothing is refused: what to do about it is
for people to decide, so pairs are only listed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.catalog import LOOK_ALIKES_FILE
from pipeline.geometry import canonical_view
from pipeline.ingest.thumbnails import thumbnail
from pipeline.near_duplicates import EDGE, reduce_images

THRESHOLD = 0.96
"""Lowest correlation of each of the three slices of a near copy.

Of 10 digital heads and 8 pelves, MR and CT, no two subjects of one kind come closer than 0.93, mirrored or not, while
copies that were scaled, shifted by a voxel and given noise of 2.5 % of their range stay above 0.966.
"""

CHUNK = 512
"""Series compared at a time; bounds memory."""


SCHEMA = {
    "series_id": pl.String,
    "other_series_id": pl.String,
    "subject_id": pl.String,
    "other_subject_id": pl.String,
    "kind": pl.String,  # same voxels | near copy | mirrored copy
    "similarity": pl.Float64,  # smallest correlation of three slices
}


@dataclass(frozen=True)
class LookAlike:
    """Two series that show the same.

    Attributes:
        first, second: numbers of the series, first < second.
        kind: ``same voxels``, ``near copy``, or ``mirrored copy`` (left and right exchanged).
        similarity: smallest of the three correlations; 1 for the same voxels.
    """

    first: int
    second: int
    kind: str
    similarity: float


def signature(voxels: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Axial, coronal and sagittal slice through the middle, (3, 32, 32), each of mean 0 and norm 1.

    Args:
        voxels: (i, j, k).
        affine: voxel index → RAS+ mm.
    """
    canonical = canonical_view(voxels, affine)
    i, j, k = (size // 2 for size in canonical.shape)
    planes = (canonical[:, :, k], canonical[:, j, :], canonical[i, :, :])
    return reduce_images([_padded(thumbnail(np.ascontiguousarray(plane))) for plane in planes])


def write_look_alikes(
    folder: Path, rows: Sequence[Mapping[str, Any]], signatures: Sequence[NDArray[np.float32]]
) -> int:
    """Write the table of a catalog; returns how many pairs there are.

    Args:
        folder: of the catalog.
        rows: series rows of its volumes, see `pipeline.catalog`.
        signatures: one a row.
    """
    columns = ("content_sha256", "subject_id", "modality")
    contents, subjects, kinds = ([str(row[name]) for row in rows] for name in columns)
    pairs = [
        {
            "series_id": rows[pair.first]["series_id"],
            "other_series_id": rows[pair.second]["series_id"],
            "subject_id": subjects[pair.first],
            "other_subject_id": subjects[pair.second],
            "kind": pair.kind,
            "similarity": round(pair.similarity, 4),
        }
        for pair in find_look_alikes(signatures, contents, subjects, kinds)
    ]
    table = pl.DataFrame(pairs, schema=SCHEMA).sort("series_id", "other_series_id")
    table.write_parquet(folder / LOOK_ALIKES_FILE)
    return table.height


def find_look_alikes(
    signatures: Sequence[NDArray[np.float32]], contents: Sequence[str], subjects: Sequence[str], kinds: Sequence[str]
) -> list[LookAlike]:
    """Pairs of series of different subjects that look alike, by rising numbers.

    Args:
        signatures: one a series.
        contents: hash of each series' voxels; equal ones are the same.
        subjects: whose they are.
        kinds: series of different kinds (modalities) are not compared.
    """
    found: dict[tuple[int, int], LookAlike] = {}
    for kind in sorted(set(kinds)):
        members = [number for number, other in enumerate(kinds) if other == kind]
        stack = np.stack([signatures[number] for number in members])
        mirrored = _mirrored(stack)
        for start in range(0, len(members), CHUNK):
            part = slice(start, start + CHUNK)
            plain, flipped = _smallest(stack[part], stack), _smallest(stack[part], mirrored)
            rows, columns = np.nonzero(np.maximum(plain, flipped) >= THRESHOLD)
            for row, column in zip((rows + start).tolist(), columns.tolist(), strict=True):
                pair = members[row], members[column]
                if pair[0] < pair[1] and subjects[pair[0]] != subjects[pair[1]]:
                    straight, turned = float(plain[row - start, column]), float(flipped[row - start, column])
                    found[pair] = _look_alike(pair, contents, straight, turned)
    return [found[pair] for pair in sorted(found)]


def _look_alike(pair: tuple[int, int], contents: Sequence[str], straight: float, turned: float) -> LookAlike:
    if contents[pair[0]] == contents[pair[1]]:
        return LookAlike(*pair, "same voxels", 1.0)
    if straight >= min(turned, THRESHOLD):
        return LookAlike(*pair, "near copy", min(1.0, straight))
    return LookAlike(*pair, "mirrored copy", min(1.0, turned))


def _smallest(part: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M): smallest correlation over the three planes."""
    planes = [part[:, plane].reshape(len(part), -1) @ whole[:, plane].reshape(len(whole), -1).T for plane in range(3)]
    return np.asarray(np.minimum.reduce(planes))


def _mirrored(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signatures of the volumes with left and right exchanged: the first axis of the axial and coronal slices."""
    turned = stack.copy()
    turned[:, :2] = stack[:, :2, ::-1]
    return turned


def _padded(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """A thin slice, repeated where it has fewer pixels than the signature, so that it can be reduced."""
    repeats = [max(1, -(-EDGE // size)) for size in plane.shape]
    return np.asarray(plane.repeat(repeats[0], axis=0).repeat(repeats[1], axis=1))
