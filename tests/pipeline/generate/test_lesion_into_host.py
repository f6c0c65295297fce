"""Masks of crops, stamps on other grids, places, and hosts of which nothing else changes."""

import math

import numpy as np
import pytest
from scipy import ndimage

from pipeline.generate.lesion_into_host import blend, find_place, room, stamp_of
from pipeline.generate.lesion_mask import lesion_mask

SIDE = 48


def crop(radius=9.0, contrast=0.8, noise=0.03, seed=0, center=(23.5, 23.5), ramp=0.0):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(seed)
    disk = 1 / (1 + np.exp(2 * (np.hypot(rows - center[0], columns - center[1]) - radius)))
    image = -0.3 + contrast * disk + ramp * (rows - SIDE / 2) / SIDE + rng.normal(0, noise, disk.shape)
    return np.clip(image, -1, 1).astype(np.float32)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def disk(radius, center=(23.5, 23.5)):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - center[0], columns - center[1]) <= radius


@pytest.mark.parametrize("contrast", [0.3, 0.8, -0.5])
@pytest.mark.parametrize("radius", [4.0, 7.0, 11.0])
def test_the_lesion_is_told_from_its_background(radius, contrast):
    mask = lesion_mask(crop(radius, contrast))
    assert mask is not None
    assert dice(mask, disk(radius)) > 0.85


def test_rings_are_filled_and_other_parts_left_out():
    image = crop(10.0)
    image[disk(5.0)] = -0.3
    image[4:12, 30:44] = 0.5
    mask = lesion_mask(image)
    assert mask is not None
    assert mask[24, 24]
    assert not mask[4:12, 30:44].any()
    assert ndimage.label(mask)[1] == 1


def test_neighbors_of_the_other_sign_and_thin_tails_are_left_out():
    image = crop(8.0, noise=0.0)
    alone = lesion_mask(image)
    image[18:30, 33:42] = -0.9
    image[32:44, 23:25] = 0.5
    mask = lesion_mask(image)
    assert dice(mask, alone) > 0.95
    assert not mask[18:30, 34:42].any()
    assert not mask[36:44, 23:25].any()


def test_masks_of_mirrored_and_inverted_crops_are_mirrored_and_equal():
    image = crop(7.0, center=(21, 25))
    mask = lesion_mask(image)
    assert np.array_equal(lesion_mask(image[:, ::-1]), mask[:, ::-1])
    assert np.array_equal(lesion_mask(image.T), mask.T)
    assert np.array_equal(lesion_mask(-image), mask)


@pytest.mark.parametrize(
    "image",
    [
        np.full((SIDE, SIDE), -0.2, np.float32),
        crop(contrast=0.0),
        np.pad(np.full((2, 1), 0.5, np.float32), ((23, 23), (23, 24)), constant_values=-0.3),
        crop(center=(6, 6), radius=4.0),
        crop(radius=22.0),
    ],
    ids=["constant", "noise", "too small", "beside the middle", "fills the crop"],
)
def test_where_no_lesion_can_be_told_there_is_none(image):
    assert lesion_mask(image) is None


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (2.0, 0.5, 1.5)])
@pytest.mark.parametrize("radius", [6.0, 10.0])
def test_a_disk_becomes_a_ball_of_its_volume(radius, spacing):
    stamp = stamp_of(crop(radius), 0.75, spacing, 2.0, 99)
    area = lesion_mask(crop(radius)).sum() * 0.75**2
    assert area == pytest.approx(math.pi * (radius * 0.75) ** 2, rel=0.15)
    volume = 4 / 3 * math.pi * math.sqrt(area / math.pi) ** 3
    assert stamp.mask.sum() * math.prod(spacing) == pytest.approx(volume, rel=0.1)
    middle = stamp.mask[len(stamp.mask) // 2]
    assert middle.sum() * spacing[1] * spacing[2] == pytest.approx(area, rel=0.1)
    assert np.allclose(stamp.mask, stamp.mask[::-1]), "above and below are alike"


def test_in_one_slice_there_is_one_section():
    stamp = stamp_of(crop(), 1.0, (5.0, 1.0, 1.0), 2.0, 1)
    assert len(stamp.mask) == 1
    assert stamp.mask.sum() == pytest.approx(lesion_mask(crop()).sum(), rel=0.1)


def test_the_rim_is_as_wide_as_it_should_be():
    stamp = stamp_of(crop(), 1.0, (1.0, 1.0, 1.0), 4.0, 1)
    distance = ndimage.distance_transform_edt(~stamp.mask[0])
    assert np.array_equal(stamp.footprint[0], distance <= 4.0)
    assert stamp_of(np.zeros((SIDE, SIDE), np.float32), 1.0, (1, 1, 1), 2.0, 9) is None


def test_room_keeps_the_margin_in_mm_and_off_the_edge():
    allowed = np.ones((9, 20, 30), bool)
    allowed[4, 10, 15] = False
    free = room(allowed, (4.0, 1.0, 2.0), 5.0)
    k, i, j = np.nonzero(free)
    far = np.sqrt((4.0 * (k - 4)) ** 2 + (i - 10) ** 2 + (2.0 * (j - 15)) ** 2)
    assert far.min() > 5.0
    assert ((k + 1) * 4.0 > 5).all()
    assert ((i + 1 > 5) & (20 - i > 5)).all()
    assert (((j + 1) * 2 > 5) & ((30 - j) * 2 > 5)).all()
    expected = [
        (a, b, c)
        for a in range(9) for b in range(20) for c in range(30)
        if math.sqrt((4 * (a - 4)) ** 2 + (b - 10) ** 2 + (2 * (c - 15)) ** 2) > 5
        and min((a + 1) * 4, (9 - a) * 4, b + 1, 20 - b, (c + 1) * 2, (30 - c) * 2) > 5
    ]  # fmt: skip
    assert np.argwhere(free).tolist() == [list(place) for place in expected]


@pytest.mark.parametrize("seed", range(5))
def test_footprints_stay_inside_and_places_are_those_of_the_seed(seed):
    rows, columns = np.mgrid[:90, :90]
    allowed = np.repeat((np.hypot(rows - 45, columns - 45) < 40)[None], 21, axis=0)
    free = room(allowed, (2.0, 1.0, 1.0), 3.0)
    stamp = stamp_of(crop(7.0), 1.0, (2.0, 1.0, 1.0), 2.0, 21)
    place = find_place(free, stamp, np.random.default_rng(seed))
    assert place == find_place(free, stamp, np.random.default_rng(seed))
    host = np.random.default_rng(9).uniform(-1, 1, free.shape).astype(np.float32)
    placed = blend(host, stamp, place, "poisson")
    written = np.zeros(free.shape, bool)
    written[placed.window] = placed.footprint
    assert written.sum() == stamp.footprint.sum(), "nothing is cut off"
    assert free[written].all()
    distance = ndimage.distance_transform_edt(np.pad(allowed, 1), sampling=(2.0, 1.0, 1.0))[1:-1, 1:-1, 1:-1]
    assert distance[written].min() > 3.0


def test_places_differ_by_seed_and_cover_the_room():
    free = room(np.ones((1, 100, 100), bool), (1.0, 1.0, 1.0), 0.0)
    stamp = stamp_of(crop(5.0), 1.0, (1.0, 1.0, 1.0), 1.0, 1)
    places = np.asarray([find_place(free, stamp, np.random.default_rng(seed)) for seed in range(60)])
    assert len(np.unique(places, axis=0)) > 50
    assert places[:, 1:].min() < 25
    assert places[:, 1:].max() > 75


def test_without_room_there_is_no_place():
    stamp = stamp_of(crop(9.0), 1.0, (1.0, 1.0, 1.0), 1.0, 1)
    rng = np.random.default_rng(0)
    assert find_place(np.zeros((1, 90, 90), bool), stamp, rng) is None
    narrow = np.zeros((1, 90, 90), bool)
    narrow[:, 40:50, :] = True
    assert find_place(narrow, stamp, rng) is None
    assert find_place(np.ones((1, 12, 12), bool), stamp, rng) is None


@pytest.mark.parametrize("how", ["poisson", "feathered"])
def test_on_flat_tissue_the_lesion_keeps_its_contrast_and_the_rest_its_bits(how):
    host = np.full((1, 80, 80), 0.1, np.float32)
    stamp = stamp_of(crop(8.0, 0.6, noise=0.0, ramp=0.1), 1.0, (1.0, 1.0, 1.0), 4.0, 1)
    placed = blend(host, stamp, (0, 40, 41), how)
    assert np.array_equal(placed.units[~placed.footprint], host[placed.window][~placed.footprint])
    core = ndimage.binary_erosion(placed.mask[0], iterations=3)
    assert placed.units[0][core].mean() == pytest.approx(0.1 + 0.6, abs=0.05)
    rim = placed.footprint & ~ndimage.binary_dilation(placed.mask, iterations=2)
    assert placed.units[rim].mean() == pytest.approx(0.1, abs=0.05)
    center = [
        axis.start + middle for axis, middle in zip(placed.window, ndimage.center_of_mass(placed.mask), strict=True)
    ]
    assert center == pytest.approx([0, 40, 41], abs=0.3)
