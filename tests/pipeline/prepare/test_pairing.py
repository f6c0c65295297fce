"""Pairs of one subject in two frames of reference: registered, checked, refused where they cannot be believed."""

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.mr_to_ct import prepared_warnings
from pipeline.geometry import Geometry
from pipeline.phantom import PhantomGrid, phantom_subject
from pipeline.prepare.mr_to_ct import prepare_volume_set
from pipeline.prepare.registration import Transform
from pipeline.prepared_set import from_slices, read_volume_set
from pipeline.records import silent
from pipeline.settings import PrepareMRToCTSettings
from tests.pipeline.prepare.bent_phantoms import bent_pair

GRID = PhantomGrid((56, 66, 23), (4.0, 4.0, 7.0), (11.0, 14.0))
FAR = (150.0, -60.0, 210.0)


@pytest.fixture(scope="module")
def truth():
    return phantom_subject(3, 0, "HEAD", grid=GRID)


def prepared(maker, folder, **changes):
    plain = {"spacing_mm": GRID.spacing_mm, "n4": {"enabled": False}, "registration": "rigid"}
    catalog = maker.write()
    settings = PrepareMRToCTSettings.model_validate(plain | changes)
    facts = prepare_volume_set(catalog, {"s0": "train"}, settings, folder, silent)
    table = folder / "registrations.parquet"
    return facts, read_volume_set(folder), pl.read_parquet(table).to_dicts() if table.exists() else None


def fill(maker, truth, ct, shift=FAR):
    affine = truth.geometry.affine.copy()
    affine[:3, 3] += shift
    maker.volume("s0", "MR", truth.mr, truth.geometry.affine, frame_of_reference_uid="1.2.1")
    maker.volume("s0", "CT", ct, affine, frame_of_reference_uid="1.2.2")


def test_two_frames_of_reference_become_a_pair_on_the_grid_of_the_mr(maker, tmp_path, truth):
    fill(maker, truth, truth.ct_hu)
    facts, volumes, ((attempt),) = prepared(maker, tmp_path / "out")
    assert (facts["pairs"], facts["refused_pairs"]) == (1, {})
    assert attempt["accepted"]
    assert not attempt["same_frame"]
    found = np.reshape(attempt["mr_to_ct_mm"], (4, 4))
    corners = np.array([truth.geometry.to_world(corner) for corner in ((10, 10, 2), (45, 55, 20), (10, 55, 12))])
    moved = corners @ found[:3, :3].T + found[:3, 3]
    assert np.linalg.norm(moved - corners - FAR, axis=1).max() < 2.5
    (mr,) = volumes.volumes("MR", ["train"])
    ct = volumes.row(mr["pair_volume"])
    assert ct["affine"] == mr["affine"]
    hu = from_slices(np.asarray(volumes.voxels(ct), np.float32))
    assert np.corrcoef(hu.ravel(), truth.ct_noise_free_hu.ravel())[0, 1] > 0.96


def test_without_registration_other_frames_stay_apart(maker, tmp_path, truth):
    fill(maker, truth, truth.ct_hu)
    facts, _, attempts = prepared(maker, tmp_path / "out", registration="none")
    assert facts["pairs"] == 0
    assert attempts is None


def test_a_ct_that_cannot_be_believed_leaves_the_mr_without_a_pair_and_says_why(maker, tmp_path, truth):
    fill(maker, truth, truth.ct_hu[::-1])
    facts, volumes, ((attempt),) = prepared(maker, tmp_path / "out")
    assert facts["pairs"] == 0
    assert not attempt["accepted"]
    assert "left and right exchanged" in attempt["refusal"]
    (mr,) = volumes.volumes("MR", ["train"])
    assert mr["pair_volume"] == -1
    assert facts["refused_pairs"] == {mr["series_id"]: attempt["refusal"]}
    assert prepared_warnings(facts) == [f"An MR without a pair, for its registration failed: {attempt['refusal']}"]


def test_too_few_slices_are_refused_and_not_registered(maker, tmp_path, truth):
    thin = Geometry((56, 66, 3), truth.geometry.affine)
    fill(maker, truth, truth.ct_hu[:, :, 10 : 10 + thin.shape[2]])
    facts, _, ((attempt),) = prepared(maker, tmp_path / "out")
    assert facts["pairs"] == 0
    assert attempt["refusal"] == "3 voxels along an axis (at least 4)"
    assert attempt["mr_to_ct_mm"] is None


def test_a_bent_ct_is_bent_back_where_settings_ask_for_it(maker, tmp_path):
    truth, _, ct = bent_pair(0, "HEAD", GRID, 10)
    fill(maker, truth, np.rint(ct.voxels), shift=(0.0, 0.0, 0.0))
    facts, volumes, ((attempt),) = prepared(maker, tmp_path / "out", registration="deformable")
    assert attempt["accepted"]
    assert (attempt["method"], attempt["bend_refusal"], facts["kept_rigid"]) == ("deformable", "", {})
    assert attempt["information_gain"] > 0.1
    assert len(attempt["bend_points_mm"]) == 3 * np.prod(attempt["bend_counts"])
    (mr,) = volumes.volumes("MR", ["train"])
    bent = from_slices(np.asarray(volumes.voxels(volumes.row(mr["pair_volume"])), np.float32))
    rigid = Transform(np.reshape(attempt["mr_to_ct_mm"], (4, 4))).warp(ct.voxels, ct.grid.affine, ct.grid, -1000.0)
    inside = from_slices(volumes.mask(mr)) > 0
    unlike = [1 - np.corrcoef(hu[inside], truth.ct_noise_free_hu[inside])[0, 1] for hu in (rigid, bent)]
    assert unlike[1] < 0.85 * unlike[0]


def test_a_bend_that_gains_nothing_leaves_the_pair_rigid_and_says_why(maker, tmp_path, truth):
    fill(maker, truth, truth.ct_hu)
    facts, volumes, ((attempt),) = prepared(maker, tmp_path / "out", registration="deformable")
    assert (attempt["accepted"], attempt["method"]) == (True, "rigid")
    assert "gain of mutual information" in attempt["bend_refusal"]
    assert attempt["bend_points_mm"] is None
    (mr,) = volumes.volumes("MR", ["train"])
    assert facts["kept_rigid"] == {mr["series_id"]: attempt["bend_refusal"]}
    assert prepared_warnings(facts) == [f"A pair without the bend asked for, which failed: {attempt['bend_refusal']}"]
