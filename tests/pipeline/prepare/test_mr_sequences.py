"""Several MR sequences as one input: which scans belong together, and how they lie in the prepared set."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.intensity import from_int16
from pipeline.phantom import PhantomGrid, phantom_subject
from pipeline.prepare.mr_to_ct import prepare_volume_set
from pipeline.prepare.registration import displaced
from pipeline.prepared_set import from_slices, read_volume_set
from pipeline.records import silent
from pipeline.resampling import resample
from pipeline.settings import PrepareMRToCTSettings, RunSettings

GRID = PhantomGrid((56, 66, 23), (4.0, 4.0, 7.0), (11.0, 14.0))
FRAME = {"frame_of_reference_uid": "1.2"}


@pytest.fixture(scope="module")
def t1():
    return phantom_subject(3, 0, "HEAD", "T1", grid=GRID)


@pytest.fixture(scope="module")
def t2():
    return phantom_subject(3, 0, "HEAD", "T2", grid=GRID)


def prepared(maker, folder, **changes):
    plain = {"spacing_mm": GRID.spacing_mm, "n4": {"enabled": False}, "sequences": ["T1", "T2"]}
    settings = PrepareMRToCTSettings.model_validate(plain | changes)
    catalog = maker.write()
    splits = {row["subject_id"]: "train" for row in catalog.series.to_dicts()}
    facts = prepare_volume_set(catalog, splits, settings, folder, silent)
    return facts, read_volume_set(folder)


def fill(maker, t1, t2, subject="s0", **second):
    maker.volume(subject, "MR", t1.mr, t1.geometry.affine, sequence="T1", **FRAME)
    if t2 is not None:
        maker.volume(subject, "MR", t2.mr, t2.geometry.affine, **({"sequence": "T2"} | FRAME | second))
    maker.volume(subject, "CT", t1.ct_hu, t1.geometry.affine, **FRAME)


def test_two_sequences_are_one_input_each_normalized_by_itself(maker, tmp_path, t1, t2):
    fill(maker, t1, t2)
    facts, volumes = prepared(maker, tmp_path / "both")
    assert (facts["mr_volumes"], facts["pairs"], facts["sequences"]) == (1, 1, ["T1", "T2"])
    (row,) = volumes.volumes("MR", ["train"])
    channels = volumes.channels(row)
    assert channels.shape == (2, *volumes.voxels(row).shape)
    assert np.array_equal(channels[0], volumes.voxels(row))
    for name, number in (("T1", 0), ("T2", 1)):
        alone = [row for row in maker.series if row["sequence"] == name or row["modality"] == "CT"]
        whole, maker.series = maker.series, alone
        _, single = prepared(maker, tmp_path / name, sequences=[])
        maker.series = whole
        (own,) = single.volumes("MR", ["train"])
        assert np.array_equal(channels[number], single.voxels(own)), name
    assert row["channel_series"] == [maker.series[1]["series_id"]]
    assert row["sequence"] == "T1"


def test_order_is_that_of_the_settings_and_case_does_not_count(maker, tmp_path, t1, t2):
    fill(maker, t1, t2)
    _, first = prepared(maker, tmp_path / "a")
    _, second = prepared(maker, tmp_path / "b", sequences=["t2", "t1"])
    ((one,), (other,)) = (found.volumes("MR", ["train"]) for found in (first, second))
    assert np.array_equal(first.channels(one)[0], second.channels(other)[1])
    assert other["sequence"] == "T2"


def test_a_second_sequence_of_another_grid_lies_on_that_of_the_first(maker, tmp_path, t1, t2):
    finer = Geometry((75, 88, 33), np.diag([3.1, 3.1, 5.2, 1.0]) @ np.eye(4))
    affine = finer.affine.copy()
    affine[:3, 3] = t1.geometry.affine[:3, 3] - (3.0, 2.0, 4.0)
    finer = Geometry(finer.shape, affine)
    voxels = resample(t2.mr.astype(np.float32), t2.geometry.affine, finer)
    maker.volume("s0", "MR", t1.mr, t1.geometry.affine, sequence="T1", **FRAME)
    maker.volume("s0", "MR", voxels[::-1], flipped(finer), sequence="T2", **FRAME)
    maker.volume("s0", "CT", t1.ct_hu, t1.geometry.affine, **FRAME)
    _, volumes = prepared(maker, tmp_path / "out")
    (row,) = volumes.volumes("MR", ["train"])
    units = from_slices(from_int16(volumes.channels(row)[1]))
    inside = from_slices(np.asarray(volumes.mask(row))) > 0
    assert np.corrcoef(units[inside], t2.mr[inside])[0, 1] > 0.9
    assert np.corrcoef(units[inside], t1.mr[inside])[0, 1] < 0.5


def flipped(geometry):
    affine = geometry.affine.copy()
    affine[:, 3] += affine[:, 0] * (geometry.shape[0] - 1)
    affine[:, 0] *= -1
    return affine


def test_a_case_that_lacks_a_sequence_is_left_out_with_the_reason(maker, tmp_path, t1, t2):
    fill(maker, t1, t2)
    fill(maker, t1, None, "s1")
    fill(maker, t1, t2, "s2", frame_of_reference_uid="9.9")
    maker.volume("s3", "MR", t2.mr, t2.geometry.affine, sequence="T2", **FRAME)
    facts, volumes = prepared(maker, tmp_path / "out")
    assert facts["mr_volumes"] == 1
    reasons = {name[:2]: reason for name, reason in facts["left_out"].items()}
    assert reasons == {
        "s1": "No T2 registered to a scan of T1.",
        "s2": "No T2 registered to a scan of T1.",
        "s3": "No scan of T1 of the subject, but T2.",
    }
    assert set(volumes.volumes("MR", ["train"])[0]["subject_id"]) == set("s0")


def test_all_scans_of_a_subject_belong_together_where_settings_say_so(maker, tmp_path, t1, t2):
    fill(maker, t1, t2, frame_of_reference_uid="9.9")
    facts, _ = prepared(maker, tmp_path / "out", pair_by="subject")
    assert (facts["mr_volumes"], facts["left_out"]) == (1, {})


def test_a_sequence_of_another_frame_is_registered_to_the_first(maker, tmp_path, t1, t2):
    known = displaced(np.eye(4), np.zeros(3), 9.0, 4.0)
    known[:3, 3] += (120.0, -40.0, 60.0)
    maker.volume("s0", "MR", t1.mr, t1.geometry.affine, sequence="T1", **FRAME)
    maker.volume("s0", "MR", t2.mr, known @ t2.geometry.affine, sequence="T2", frame_of_reference_uid="9.9")
    maker.volume("s0", "CT", t1.ct_hu, t1.geometry.affine, **FRAME)
    maker.volume("s1", "MR", t1.mr, t1.geometry.affine, sequence="T1", **FRAME)
    maker.volume("s1", "MR", t2.mr[::-1], t2.geometry.affine, sequence="T2", frame_of_reference_uid="9.9")
    facts, volumes = prepared(maker, tmp_path / "out", registration="rigid")
    (row,) = volumes.volumes("MR", ["train"])
    corners = np.array([t1.geometry.to_world(corner) for corner in ((10, 10, 4), (45, 55, 20), (10, 55, 12))])
    matrix = np.reshape(row["channel_moved"][0], (4, 4)) @ known
    assert np.linalg.norm(corners @ matrix[:3, :3].T + matrix[:3, 3] - corners, axis=1).max() < 2.5
    inside = from_slices(np.asarray(volumes.mask(row))) > 0
    units = from_slices(from_int16(volumes.channels(row)[1]))
    assert np.corrcoef(units[inside], t2.mr[inside])[0, 1] > 0.85
    (reason,) = facts["left_out"].values()
    assert "left and right exchanged" in reason


def test_without_any_whole_case_the_set_is_refused(maker, tmp_path, t1):
    fill(maker, t1, None)
    with pytest.raises(InputError, match="T1 and T2 of a subject registered"):
        prepared(maker, tmp_path / "out")


def test_a_sequence_that_shows_half_of_the_body_leaves_the_case_out(maker, tmp_path, t1, t2):
    fill(maker, t1, t2)
    maker.volume("s1", "MR", t1.mr, t1.geometry.affine, sequence="T1", **FRAME)
    maker.volume("s1", "MR", t2.mr[:, :, :12], t2.geometry.affine, sequence="T2", **FRAME)
    facts, _ = prepared(maker, tmp_path / "out")
    (reason,) = facts["left_out"].values()
    assert "% of it in the field of view of T2" in reason


@pytest.mark.parametrize("names", [["T1"], ["T1", "t1"]])
def test_one_sequence_or_the_same_twice_is_no_list(names):
    with pytest.raises(ValidationError, match="two to four different ones"):
        PrepareMRToCTSettings.model_validate({"sequences": names})


def test_a_set_without_sequences_is_written_as_before(maker, tmp_path, t1, t2):
    fill(maker, t1, t2)
    facts, volumes = prepared(maker, tmp_path / "out", sequences=[])
    assert facts["mr_volumes"] == 2
    assert "sequences" not in volumes.facts
    assert not any(name.startswith("channel") for name in volumes.table.columns)


def test_networks_of_three_dimensions_take_one_sequence():
    several = {"prepare": {"mr_to_ct": {"sequences": ["T1", "T2"]}}}
    RunSettings.model_validate(several)
    with pytest.raises(ValidationError, match="dimensions: 3 takes one MR"):
        RunSettings.model_validate(several | {"train": {"mr_to_ct": {"dimensions": 3, "slices": 16}}})
