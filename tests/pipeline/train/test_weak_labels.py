"""Weak labels on heads of ellipses: skulls land where they belong although no CT of the subject is seen."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.train import weak_labels
from pipeline.train.weak_labels import Atlas, weak_ct, weak_labels_of
from tests.pipeline.train.conftest import volume_set

SIDE, SLICES = 64, 4


def head(high: float, wide: float, down: float, seed: int, unit: str = "grey"):
    """MR with bright scalp, dark skull, bright brain with a darker core; CT whose outline is the skull's."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mr, ct, body, skull = [], [], [], []
    for k in range(SLICES):
        size = 1 - 0.08 * k
        radius = np.hypot((rows - 32 - down) / (high * size), (columns - 32) / (wide * size))
        regions = [radius < 0.55, radius < 0.8, radius < 0.9, radius < 1.0]
        mr.append(np.select(regions, [0.2, 0.4, -0.85, 0.5], -1.0) + rng.normal(0, 0.03, radius.shape))
        ct.append(np.select(regions, [90.0, 120.0, 255.0, 0.0], 0.0))
        body.append(radius < 1.0)
        skull.append(radius < 0.9)
    values = np.stack(ct)
    if unit == "HU":
        values = np.select([values == 255, values > 0], [900.0, 40.0], -1000.0)
    return np.stack(mr).clip(-1, 1).astype(np.float32), values.astype(np.float32), np.stack(body), np.stack(skull)


SHAPES = [(24, 20, 0), (27, 19, 2), (22, 22, -2), (26, 21, 1)]


def test_edges_are_spread_in_hounsfield_units_alone():
    mr, _, body, _ = head(25, 20, 3, 9)
    for unit, between in (("HU", True), ("grey", False)):
        others = [head(*shape, seed, unit) for seed, shape in enumerate(SHAPES)]
        guess = weak_ct(mr, body, [Atlas(other[1], other[3]) for other in others], unit)
        low, high = (-950, -50) if unit == "HU" else (5, 80)
        assert bool(((guess > low) & (guess < high)).any()) is between


@pytest.mark.parametrize(("unit", "level"), [("grey", 250.0), ("HU", 250.0)])
def test_bone_is_found_where_it_is(unit, level):
    mr, ct, body, _ = head(25, 20, 3, 9, unit)
    others = [head(*shape, seed, unit) for seed, shape in enumerate(SHAPES)]
    guess = weak_ct(mr, body, [Atlas(other[1], other[3]) for other in others], unit)
    found, true = guess >= level, ct >= level
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85
    brain = (ct < level) & (ct > (0 if unit == "grey" else -300))
    assert np.abs(guess - ct)[brain].mean() < 25
    assert (guess[~body] <= 0).mean() > 0.97


def test_what_is_bright_is_never_air_in_hounsfield_units():
    mr, _, body, _ = head(25, 20, 3, 9, "HU")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ear = np.broadcast_to((np.abs(rows - 32) < 4) & (np.abs(columns - 54) < 4), mr.shape) & ~body
    mr[ear], body = 0.5, body | ear
    others = [head(*shape, seed, "HU") for seed, shape in enumerate(SHAPES)]
    guess = weak_ct(mr, body, [Atlas(other[1], other[1] > -1000) for other in others], "HU")
    assert ear.sum() > 100
    assert (guess[ear] > -300).mean() > 0.95


@pytest.mark.parametrize(("brain", "bent"), [(0.4, True), (-0.85, False)])
def test_slices_are_bent_where_the_mr_tells_bone_from_soft_tissue(brain, bent, monkeypatch):
    """Where soft tissue is as dark as bone, nothing tells where to."""
    mr, ct, body, _ = head(25, 20, 3, 9, "HU")
    mr = np.where(ct == 40, np.float32(brain) + np.random.default_rng(1).normal(0, 0.03, mr.shape), mr)
    others = [head(*shape, seed, "HU") for seed, shape in enumerate(SHAPES)]
    atlases = [Atlas(other[1], other[1] > -1000) for other in others]
    guess = weak_ct(mr.astype(np.float32), body, atlases, "HU")
    known = weak_labels._KNOWN
    monkeypatch.setitem(known, "HU", replace(known["HU"], bent_below=0.0))
    straight = weak_ct(mr.astype(np.float32), body, atlases, "HU")
    assert np.array_equal(guess, straight) is not bent


def test_the_own_ct_of_a_subject_is_never_an_atlas(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pipeline.train.weak_labels.weak_ct", lambda mr, mask, atlases, unit: seen.append(len(atlases)))
    volumes = volume_set(tmp_path / "three", subjects=3)
    assert sorted(weak_labels_of(volumes)) == [row["volume"] for row in volumes.volumes("MR", ["train"])]
    assert seen == [2, 2, 2]
    with pytest.raises(InputError, match="two or more training subjects"):
        weak_labels_of(volume_set(tmp_path / "one", subjects=1))
