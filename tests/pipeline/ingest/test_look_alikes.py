"""Who looks like whom: copies under another id are found, other people are not."""

import numpy as np
import polars as pl
import pytest

from pipeline.catalog import LOOK_ALIKES_FILE
from pipeline.ingest.look_alikes import THRESHOLD, find_look_alikes, signature
from pipeline.phantom import phantom_subject


@pytest.fixture(scope="module")
def heads():
    return [phantom_subject(0, index, "HEAD") for index in range(4)]


def pairs(volumes, subjects=None, kinds=None, affine=None):
    count = len(volumes)
    signatures = [signature(voxels, grid) for voxels, grid in volumes]
    return find_look_alikes(
        signatures,
        [str(number) for number in range(count)],
        subjects or list("abcdefgh"[:count]),
        kinds or ["MR"] * count,
    )


def grids(heads, name="mr"):
    return [(getattr(head, name), head.geometry.affine) for head in heads]


@pytest.mark.parametrize("name", ["mr", "ct_hu"])
def test_different_subjects_of_one_kind_do_not_look_alike(heads, name):
    assert pairs(grids(heads, name)) == []


@pytest.mark.parametrize("name", ["mr", "ct_hu"])
@pytest.mark.parametrize(
    "copy",
    [
        lambda voxels, rng: voxels * 1.7 + 30,
        lambda voxels, rng: np.roll(voxels, 1, axis=0),
        lambda voxels, rng: voxels + rng.normal(0, 0.025 * np.ptp(voxels), voxels.shape),
        lambda voxels, rng: np.roll(voxels * 0.5 - 7, 1, axis=1) + rng.normal(0, 0.01 * np.ptp(voxels), voxels.shape),
    ],
    ids=["scaled", "shifted", "noisy", "all of it"],
)
def test_a_copy_under_another_id_is_found(heads, name, copy):
    volumes = grids(heads, name)
    voxels, affine = volumes[2]
    found = pairs([*volumes, (copy(voxels.astype(np.float32), np.random.default_rng(0)), affine)])
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [(2, 4, "near copy")]
    assert THRESHOLD <= found[0].similarity <= 1


def test_a_mirrored_copy_is_told_as_such(heads):
    volumes = grids(heads)
    voxels, affine = volumes[1]
    found = pairs([*volumes, (voxels[::-1], affine)])
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [(1, 4, "mirrored copy")]


def test_the_order_of_voxels_does_not_matter(heads):
    voxels, affine = grids(heads)[0]
    flipped = affine @ np.array([[-1, 0, 0, voxels.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    found = pairs([(voxels, affine), (np.ascontiguousarray(voxels[::-1]), flipped)])
    assert [pair.kind for pair in found] == ["near copy"]
    assert found[0].similarity > 0.999


def test_series_of_one_subject_and_of_other_modalities_are_not_compared(heads):
    volume = grids(heads)[0]
    assert pairs([volume, volume], subjects=["a", "a"]) == []
    assert pairs([volume, volume], kinds=["MR", "CT"]) == []
    assert len(pairs([volume, volume])) == 1


def test_the_same_patient_under_two_ids_comes_out_of_an_ingest(inputs, run_ingest):
    inputs.dicom("one", seed=1, patient_id="A", study_uid="1.2.3", series_uid="1.2.3.1")
    inputs.dicom("two", seed=1, patient_id="B", study_uid="1.2.4", series_uid="1.2.4.1")
    inputs.dicom("three", seed=2, patient_id="C", study_uid="1.2.5", series_uid="1.2.5.1")
    result = run_ingest()
    table = pl.read_parquet(result.record.path(result.workspace.root) / LOOK_ALIKES_FILE)
    assert table["kind"].to_list() == ["same voxels"]
    assert result.record.facts["look_alikes"] == 1
    subjects = dict(result.catalog.series.select("series_id", "subject_id").iter_rows())
    row = table.row(0, named=True)
    assert subjects[row["series_id"]] == row["subject_id"] != row["other_subject_id"]
    assert subjects[row["other_series_id"]] == row["other_subject_id"]
