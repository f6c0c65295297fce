import math
import time

import numpy as np
import pytest
import scipy.ndimage

from pipeline.errors import InputError
from pipeline.metrics.wepl import ANGLES_DEG, ICRU44_70_KEV, StoppingPowerTable, path_lengths_mm, wepl_difference

LINEAR = StoppingPowerTable("linear", (-1000.0, 2000.0), (0.0, 3.0))
ALL_ANGLES = (0.0, 17.0, 45.0, 60.0, 90.0, 133.0, 179.0)


def disk(size: tuple[int, int], spacing: tuple[float, float], radius_mm: float) -> np.ndarray:
    """(I, J, 1) share of each voxel inside a centered disk, sampled 8 × 8 times a voxel."""
    fine = [(np.arange(8 * n) + 0.5) / 8 * s - n * s / 2 for n, s in zip(size, spacing, strict=True)]
    inside = fine[0][:, None] ** 2 + fine[1] ** 2 <= radius_mm**2
    return inside.reshape(size[0], 8, size[1], 8).mean(axis=(1, 3))[:, :, None]


def offsets_mm(beams: int, step: float) -> np.ndarray:
    return (np.arange(beams) - (beams - 1) / 2) * step


def chords(radius: float, offsets: np.ndarray) -> np.ndarray:
    return 2 * np.sqrt(np.clip(radius**2 - offsets**2, 0, None))


@pytest.mark.parametrize("angle", ALL_ANGLES)
@pytest.mark.parametrize(("size", "spacing"), [((101, 96), (1.0, 1.0)), ((130, 51), (0.8, 2.0))])
def test_a_water_cylinder_gives_its_chord(size: tuple[int, int], spacing: tuple[float, float], angle: float) -> None:
    found = path_lengths_mm(disk(size, spacing, 40), spacing, angle)[:, 0]
    offsets = offsets_mm(len(found), min(spacing))
    error = np.abs(found - chords(40, offsets))
    steep = np.abs(offsets) > 35.9  # at the rim the chord changes by more than a voxel from one beam to the next
    assert error[~steep].max() < 0.3 * max(spacing)
    assert np.sqrt(np.mean(np.square(error[~steep]))) < 0.11 * max(spacing)
    assert found.sum() * min(spacing) == pytest.approx(math.pi * 40**2, rel=3e-4)
    assert found[np.abs(offsets) > 40 + 2 * max(spacing)].max() == 0


@pytest.mark.parametrize("angle", ALL_ANGLES)
def test_a_smooth_blob_gives_its_closed_integral(angle: float) -> None:
    x, y = (np.arange(120) - 59.5)[:, None] * 1.0, (np.arange(80) - 39.5) * 1.5
    turn = math.radians(angle)
    blob = np.exp(-((x - 7) ** 2 + (y + 4) ** 2) / 2 / 8**2)[:, :, None]
    found = path_lengths_mm(blob, (1.0, 1.5, 3.0), angle)[:, 0]
    shift = -math.sin(turn) * 7 + math.cos(turn) * -4
    expected = 8 * math.sqrt(2 * math.pi) * np.exp(-((offsets_mm(len(found), 1.0) - shift) ** 2) / 2 / 8**2)
    # Linear interpolation cuts a peak by h²/8σ² of its height.
    np.testing.assert_allclose(found, expected, atol=1.5**2 / 8 / 8**2 * expected.max())


def test_the_integral_equals_the_sum_of_a_rotated_image() -> None:
    image = scipy.ndimage.gaussian_filter(np.random.default_rng(0).random((61, 61)), 3)
    image[disk((61, 61), (1.0, 1.0), 24)[:, :, 0] < 1] = 0
    image = scipy.ndimage.gaussian_filter(image, 1.5)
    for angle in (0, 30, 75, 120):
        turned = scipy.ndimage.rotate(image, -angle, axes=(0, 1), reshape=False, order=3).sum(axis=0)
        found = path_lengths_mm(image[:, :, None], (1.0, 1.0), angle)[:, 0]
        middle = len(found) // 2
        np.testing.assert_allclose(found[middle - 30 : middle + 31], turned, atol=0.005 * turned.max())


def test_beams_along_the_axes_are_plain_sums_and_turning_the_image_turns_the_beams() -> None:
    image = np.random.default_rng(1).random((9, 13, 2))
    along_first = path_lengths_mm(image, (2.0, 1.0), 0.0)
    np.testing.assert_allclose(along_first[along_first[:, 0] > 0], 2.0 * image.sum(axis=0))
    along_second = path_lengths_mm(image, (1.0, 2.0), 90.0)
    np.testing.assert_allclose(along_second[along_second[:, 0] > 1e-9][::-1], 2.0 * image.sum(axis=1))
    np.testing.assert_allclose(path_lengths_mm(image, (1, 1), 30.0), path_lengths_mm(image, (1, 1), 210.0)[::-1])
    turned = np.rot90(image, axes=(0, 1))  # the first axis comes to point along the second
    np.testing.assert_allclose(path_lengths_mm(turned, (1, 1), 120.0), path_lengths_mm(image, (1, 1), 30.0))


@pytest.mark.parametrize("angle", ALL_ANGLES)
def test_a_bone_insert_adds_its_excess_stopping_power_times_its_thickness(angle: float) -> None:
    ct = -1000 + 1000 * disk((121, 121), (1.0, 1.0), 50)
    pseudo_ct = ct.copy()
    pseudo_ct[45:76, 45:76] = 1593.5  # a square bar 31 mm wide, crossed in the middle by the central beam
    before, after = (path_lengths_mm(ICRU44_70_KEV.of(hu), (1.0, 1.0), angle) for hu in (ct, pseudo_ct))
    turn = math.radians(angle)
    thickness = 31 / max(abs(math.cos(turn)), abs(math.sin(turn)))
    assert before[len(before) // 2, 0] == pytest.approx(100, abs=0.5)
    assert (after - before)[len(before) // 2, 0] == pytest.approx((1.6896 - 1) * thickness, rel=0.01)


def test_a_cylinder_of_too_dense_water_gives_the_moments_of_its_chords() -> None:
    body = disk((201, 201), (1.0, 1.0), 95)
    ct = np.repeat(-1000 + 1000 * body, 2, axis=2)
    pseudo_ct = ct + 20
    result = wepl_difference(ct, pseudo_ct, np.repeat(body > 0.5, 2, axis=2), (1.0, 1.0, 3.0), table=LINEAR)
    assert result.mean_abs_mm == pytest.approx(0.02 * math.pi / 4 * 190, rel=0.01)  # mean chord πD/4
    assert result.p95_abs_mm == pytest.approx(0.02 * 190 * math.sqrt(1 - 0.05**2), rel=0.01)
    assert result.mean_mm == pytest.approx(result.mean_abs_mm)
    assert result.ct_mean_mm == pytest.approx(math.pi / 4 * 190, rel=0.01)
    assert [one.angle_deg for one in result.by_angle] == list(ANGLES_DEG)
    assert sum(one.beams for one in result.by_angle) == result.beams
    assert max(abs(one.mean_abs_mm / result.mean_abs_mm - 1) for one in result.by_angle) < 0.02


def test_errors_that_cancel_along_a_beam_are_seen_from_the_side() -> None:
    ct, mask = np.zeros((41, 41, 1)), np.ones((41, 41, 1))
    pseudo_ct = ct.copy()
    pseudo_ct[:20], pseudo_ct[21:] = 100, -100
    along, across = (
        wepl_difference(ct, pseudo_ct, mask, (1.0, 1.0), angles_deg=(angle,), table=LINEAR) for angle in (0.0, 90.0)
    )
    assert along.mean_abs_mm == pytest.approx(0, abs=1e-9)
    assert across.mean_abs_mm == pytest.approx(0.1 * 41 * 40 / 41)  # the middle row is right
    assert across.mean_mm == pytest.approx(0, abs=1e-9)


def test_equal_images_score_zero_exchange_flips_the_sign_and_larger_errors_score_higher() -> None:
    rng = np.random.default_rng(2)
    ct = rng.normal(0, 100, (30, 30, 2))
    noise = rng.normal(0, 50, ct.shape)
    same, small, large = (wepl_difference(ct, ct + scale * noise, None, (1.0, 1.0)) for scale in (0, 1, 4))
    assert same.mean_abs_mm == same.p95_abs_mm == same.mean_mm == 0
    assert 0 < small.mean_abs_mm < large.mean_abs_mm
    back = wepl_difference(ct + noise, ct, None, (1.0, 1.0))
    assert back.mean_mm == pytest.approx(-small.mean_mm)
    assert back.p95_abs_mm == pytest.approx(small.p95_abs_mm)


def test_what_lies_outside_the_body_does_not_count() -> None:
    body = disk((60, 60), (1.0, 1.0), 20) > 0.5
    ct = np.where(body, 0.0, -1000.0)
    table_top = np.where(body, 30.0, 500.0)
    table_top[~body] = np.nan
    assert wepl_difference(ct, table_top, body, (1.0, 1.0)) == wepl_difference(
        ct, np.where(body, 30.0, -1000.0), body, (1.0, 1.0)
    )


def test_millimeters_follow_the_spacing() -> None:
    rng = np.random.default_rng(3)
    ct, pseudo_ct = rng.normal(0, 100, (2, 50, 50, 1))
    fine, coarse = (wepl_difference(ct, pseudo_ct, None, (s, s), angles_deg=(0.0, 90.0)) for s in (1.0, 2.0))
    assert coarse.mean_abs_mm == pytest.approx(2 * fine.mean_abs_mm)


def test_the_default_table_follows_from_the_constants_of_the_tissues() -> None:
    # Z/A, mean excitation energy in eV, density in g/cm³, μ/ρ in cm²/g at 60 and 80 keV
    water = (0.55508, 75.0, 1.0, 0.2059, 0.1837)
    tissues = [
        (0.55579, 64.8, 0.95, 0.1974, 0.1800),
        water,
        (0.55000, 74.6, 1.05, 0.2048, 0.1823),
        (0.51478, 112.0, 1.92, 0.3148, 0.2229),
    ]
    gamma = 1 + 100 / 938.272
    beta2 = 1 - gamma**-2

    def attenuation(tissue: tuple[float, ...]) -> float:
        share = math.log(70 / 60) / math.log(80 / 60)
        return tissue[2] * tissue[3] ** (1 - share) * tissue[4] ** share

    def stopping(tissue: tuple[float, ...]) -> float:
        return tissue[2] * tissue[0] * (math.log(2 * 510998.95 * beta2 * gamma**2 / tissue[1]) - beta2)

    hu = [1000 * (attenuation(tissue) / attenuation(water) - 1) for tissue in tissues]
    rsp = [stopping(tissue) / stopping(water) for tissue in tissues]
    assert list(ICRU44_70_KEV.hu[1:5]) == pytest.approx(hu, abs=0.06)
    assert list(ICRU44_70_KEV.rsp[1:5]) == pytest.approx(rsp, abs=6e-5)
    slope = (rsp[3] - rsp[2]) / (hu[3] - hu[2])
    assert ICRU44_70_KEV.rsp[5] == pytest.approx(rsp[3] + slope * (3071 - hu[3]), abs=2e-4)


def test_the_table_is_linear_between_points_and_constant_beyond() -> None:
    assert ICRU44_70_KEV.of(np.array([[0.0, -1000, -2000, 9000]])).tolist() == [[1.0, 0.001, 0.001, 2.3076]]
    assert LINEAR.of(np.array([500.0]))[0] == pytest.approx(1.5)
    assert (np.diff(ICRU44_70_KEV.of(np.arange(-1000, 3072))) > 0).all()


def test_bad_input_is_refused() -> None:
    ct = np.zeros((30, 30, 2))
    with pytest.raises(InputError, match="HU strictly ascending"):
        StoppingPowerTable("falling", (0.0, 0.0), (0.0, 1.0))
    with pytest.raises(InputError, match="not negative"):
        StoppingPowerTable("negative", (0.0, 1.0), (-1.0, 1.0))
    with pytest.raises(InputError, match="three axes"):
        wepl_difference(ct[0], ct[0], None, (1.0, 1.0))
    with pytest.raises(InputError, match="positive spacings"):
        wepl_difference(ct, ct, None, (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="one finite angle"):
        wepl_difference(ct, ct, None, (1.0, 1.0), angles_deg=())
    with pytest.raises(InputError, match="not finite"):
        wepl_difference(ct, ct * np.nan, None, (1.0, 1.0))
    with pytest.raises(InputError, match="one shape"):
        wepl_difference(ct, ct[:20], None, (1.0, 1.0))
    with pytest.raises(InputError, match="cross the body"):
        wepl_difference(ct, ct, None, (0.1, 0.1))


def test_inputs_are_left_alone_and_a_volume_takes_seconds() -> None:
    rng = np.random.default_rng(4)
    ct, pseudo_ct = rng.normal(0, 100, (2, 128, 128, 32)).astype(np.float32)
    kept = ct.copy(), pseudo_ct.copy()
    start = time.process_time()
    wepl_difference(ct, pseudo_ct, None, (1.0, 1.0, 3.0))
    assert time.process_time() - start < 10
    assert np.array_equal(ct, kept[0])
    assert np.array_equal(pseudo_ct, kept[1])
