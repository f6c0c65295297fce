import numpy as np
import pytest
import torch

from pipeline.generate.fast_path import choose_plan
from pipeline.inference import Member, WindowPlan
from pipeline.intensity import CT_MAP, to_int16
from pipeline.prepared_set import VolumeSetWriter, read_volume_set
from pipeline.trained_models import TranslatorSettings

SHAPE = (5, 40, 40)
EXACT, FAST = WindowPlan(), WindowPlan(whole_slice=True)
SETTINGS = TranslatorSettings(generator="unet", width=4, slices=1, coordinates=False, patch_px=32)


@pytest.fixture
def volumes(tmp_path):
    """One test MR, and one validation MR with a CT of 500 HU."""

    def make(*, paired=True):
        mr = to_int16(CT_MAP.encode(np.full(SHAPE, 400)))
        row = {"subject_id": "a", "series_id": "a", "pair_volume": -1, "own_grid": True, "affine": None}
        with VolumeSetWriter(tmp_path) as writer:
            writer.add({**row, "modality": "MR", "split": "test"}, mr, np.ones(SHAPE, np.uint8))
            if paired:
                there = writer.add({**row, "modality": "MR", "split": "validation"}, mr, np.ones(SHAPE, np.uint8))
                ct = {**row, "modality": "CT", "split": "validation"}
                writer.link(there, writer.add(ct, np.full(SHAPE, 500, np.int16), np.ones(SHAPE, np.uint8)))
            knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
            writer.close({"unit": "HU", "ct_map": knots, "spacing_mm": None})
        return read_volume_set(tmp_path)

    return make


def moved(hu_of_whole):
    """A network that moves HU where it sees a whole slice, and hands windows on."""

    def network(windows):
        if windows.shape[-1] == SETTINGS.patch_px:
            return windows
        hu = CT_MAP.decode(windows.numpy()) + hu_of_whole
        return torch.from_numpy(CT_MAP.encode(hu))

    return Member(network, SETTINGS)


def decided(volumes, hu, plan=FAST):
    return choose_plan(plan, moved(hu), volumes, volumes.volumes("MR", ["test"]), torch.device("cpu"), 1.0)


def test_an_exact_plan_needs_no_decision(volumes):
    assert decided(volumes(), 50, EXACT) is None
    assert decided(volumes(), 50, WindowPlan(0.75, "cosine")) is None


@pytest.mark.parametrize(("hu", "taken"), [(0.9, True), (1.1, False), (-0.9, True), (-1.1, False), (200.0, True)])
def test_the_change_of_the_error_against_ct_decides(volumes, hu, taken):
    """The MR says 400 HU, the CT 500: the error is 100 HU exactly, 100 - x where HU are moved by x; 200 - 100 = 100."""
    found = decided(volumes(), hu)
    expected = 0.0 if hu == 200 else abs(hu)
    assert found.change == pytest.approx(expected, abs=0.3), "int16 holds bone in steps of 0.28 HU"
    assert (found.taken, found.plan) == (taken, FAST if taken else EXACT)
    assert "1 validation CT" in found.basis


@pytest.mark.parametrize(("hu", "taken"), [(0.9, True), (1.1, False), (200.0, False)])
def test_without_ct_the_distance_decides_which_is_never_less(volumes, hu, taken):
    found = decided(volumes(paired=False), hu)
    assert found.change == pytest.approx(abs(hu), abs=0.1)
    assert found.taken is taken
    assert "no validation CT" in found.basis
