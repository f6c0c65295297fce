import math

import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.phantom import (
    LESION_CLASSES,
    PROPERTIES,
    SEQUENCES,
    PhantomGrid,
    PhantomTruth,
    Tissue,
    phantom_subject,
    spin_echo_signal,
)
from pipeline.phantom.contrast import (
    BIAS_AMPLITUDE,
    NOISE_HU,
    NOISE_MR,
    add_ct_noise,
    add_mr_imperfections,
    bias_field,
    blur,
    hu_of_tissue,
    signal_of_tissue,
)

SMALL_HEAD = PhantomGrid((88, 104, 40), (2.5, 2.5, 4.0), (7.0, 10.0))
SMALL_PELVIS = PhantomGrid((96, 72, 24), (4.0, 4.0, 6.0), (11.0, 14.0))


@pytest.fixture(scope="module")
def head() -> PhantomTruth:
    return phantom_subject(3, 0, "HEAD", grid=SMALL_HEAD)


@pytest.fixture(scope="module")
def pelvis() -> PhantomTruth:
    return phantom_subject(3, 1, "PELVIS", grid=SMALL_PELVIS)


def block_map() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """A map with one thick block a tissue."""
    tissue = np.zeros((20, 20, 10 * len(Tissue)), dtype=np.uint8)
    for item in Tissue:
        tissue[:, :, 10 * item : 10 * item + 10] = item
    return tissue


def test_spin_echo_signal_follows_the_closed_form() -> None:
    fat = PROPERTIES[Tissue.FAT]
    for sequence, (repetition, echo) in SEQUENCES.items():
        expected = 2000 * fat.proton_density * (1 - math.exp(-repetition / fat.t1_ms)) * math.exp(-echo / fat.t2_ms)
        assert spin_echo_signal(fat, sequence) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InputError, match="T1, T2"):
        spin_echo_signal(fat, "FLAIR")


def test_contrasts_rank_tissues_as_radiology_knows_them() -> None:
    t1 = {item: spin_echo_signal(PROPERTIES[item], "T1") for item in Tissue}
    t2 = {item: spin_echo_signal(PROPERTIES[item], "T2") for item in Tissue}
    assert t1[Tissue.FAT] > t1[Tissue.WHITE_MATTER] > t1[Tissue.GRAY_MATTER] > t1[Tissue.CSF] > t1[Tissue.AIR]
    assert t2[Tissue.CSF] > t2[Tissue.GRAY_MATTER] > t2[Tissue.WHITE_MATTER] > t2[Tissue.MUSCLE]
    for signal in (t1, t2):
        assert signal[Tissue.CORTICAL_BONE] < 0.2 * signal[Tissue.MUSCLE]
        assert max(signal.values()) < 1800


def test_ct_recovers_the_hu_of_every_tissue() -> None:
    tissue = block_map()
    rng = np.random.default_rng(0)
    hu = add_ct_noise(blur(hu_of_tissue(tissue, (1.0, 1.0, 1.0), rng)), rng)
    for item in Tissue:
        inside = hu[4:-4, 4:-4, 10 * item + 3 : 10 * item + 7]
        tolerance = 3.0 + PROPERTIES[item].hu_deviation
        assert inside.mean() == pytest.approx(PROPERTIES[item].hu, abs=tolerance), item
    air = hu[4:-4, 4:-4, 3:7]
    assert air.std() == pytest.approx(NOISE_HU, rel=0.15)


def test_mr_recovers_signals_within_the_bias_and_has_rician_background() -> None:
    tissue = block_map()
    mr = add_mr_imperfections(blur(signal_of_tissue(tissue, "T1")), np.random.default_rng(0))
    for item in (Tissue.FAT, Tissue.WHITE_MATTER, Tissue.MUSCLE):
        inside = mr[4:-4, 4:-4, 10 * item + 3 : 10 * item + 7]
        assert inside.mean() == pytest.approx(spin_echo_signal(PROPERTIES[item], "T1"), rel=BIAS_AMPLITUDE)
    # Without signal, Rician noise is Rayleigh noise: mean σ√(π/2), deviation σ√(2 − π/2).
    air = mr[:, :, 2:7].astype(float)
    assert air.mean() == pytest.approx(NOISE_MR * math.sqrt(math.pi / 2), rel=0.03)
    assert air.std() == pytest.approx(NOISE_MR * math.sqrt(2 - math.pi / 2), rel=0.05)


def test_bias_field_stays_within_its_bounds_and_varies_smoothly() -> None:
    field = bias_field((40, 30, 20), np.random.default_rng(2))
    assert np.abs(field - 1).max() <= BIAS_AMPLITUDE + 1e-6
    assert np.abs(field - 1).max() >= 0.3 * BIAS_AMPLITUDE
    assert np.abs(np.diff(field, axis=0)).max() < 0.05


@pytest.mark.parametrize("name", ["head", "pelvis"])
def test_tissue_hu_is_found_inside_eroded_tissue(name: str, request: pytest.FixtureRequest) -> None:
    truth: PhantomTruth = request.getfixturevalue(name)
    checked = 0
    for item in Tissue:
        core = ndimage.binary_erosion(truth.anatomy.tissue == item) & (truth.lesion_mask == 0)
        core &= ~ndimage.binary_dilation(truth.lesion_mask > 0, iterations=3)
        if core.sum() >= 60:
            properties = PROPERTIES[item]
            assert truth.ct_hu[core].mean() == pytest.approx(properties.hu, abs=10 + properties.hu_deviation), item
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("name", ["head", "pelvis"])
def test_bone_and_air_are_both_dark_in_mr_and_far_apart_in_ct(name: str, request: pytest.FixtureRequest) -> None:
    truth: PhantomTruth = request.getfixturevalue(name)
    bone = truth.anatomy.tissue == Tissue.CORTICAL_BONE
    bone &= ndimage.uniform_filter(bone.astype(float), 3) > 0.6
    air = truth.anatomy.tissue == Tissue.AIR
    soft = np.isin(truth.anatomy.tissue, (Tissue.WHITE_MATTER, Tissue.MUSCLE))
    assert truth.mr[bone].mean() < 0.5 * truth.mr[soft].mean()
    assert truth.mr[air].mean() < 0.1 * truth.mr[soft].mean()
    assert truth.ct_hu[bone].mean() > 700
    assert truth.ct_hu[air].mean() < -950


@pytest.mark.parametrize("name", ["head", "pelvis"])
def test_the_marker_lies_on_the_left_and_is_bright_in_mr_and_watery_in_ct(
    name: str, request: pytest.FixtureRequest
) -> None:
    truth: PhantomTruth = request.getfixturevalue(name)
    where = np.argwhere(truth.anatomy.tissue == Tissue.FIDUCIAL)
    assert len(where) > 5
    assert (truth.geometry.to_world(where)[:, 0] < -40).all()
    middle = tuple(np.rint(truth.geometry.to_index(truth.anatomy.marker_mm)).astype(int))
    assert truth.anatomy.tissue[middle] == Tissue.FIDUCIAL
    assert truth.mr[middle] > 700
    assert abs(int(truth.ct_hu[middle])) < 200


@pytest.mark.parametrize("name", ["head", "pelvis"])
def test_anatomy_is_closed_and_complete(name: str, request: pytest.FixtureRequest) -> None:
    truth: PhantomTruth = request.getfixturevalue(name)
    body = truth.anatomy.tissue != Tissue.AIR
    parts, count = ndimage.label(body)
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.max() > 0.999 * sizes.sum(), count
    assert not body[[0, -1]].any()
    assert not body[:, [0, -1]].any()
    present = set(np.unique(truth.anatomy.tissue).tolist())
    brain = {Tissue.CSF, Tissue.GRAY_MATTER, Tissue.WHITE_MATTER, Tissue.VITREOUS, Tissue.DIPLOE}
    trunk = {Tissue.URINE, Tissue.MARROW, Tissue.SOFT_ORGAN}
    common = {Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.CORTICAL_BONE, Tissue.CAVITY_AIR, Tissue.FIDUCIAL}
    assert present >= common | (brain if truth.anatomy.body_part == "HEAD" else trunk)


def test_the_brain_is_enclosed_by_bone_above_the_skull_base(head: PhantomTruth) -> None:
    upper = head.anatomy.tissue[:, :, 24:34]
    brain = np.isin(upper, (Tissue.GRAY_MATTER, Tissue.WHITE_MATTER, Tissue.CSF))
    for k in range(upper.shape[2]):
        if brain[:, :, k].any():
            filled = ndimage.binary_fill_holes(np.isin(upper[:, :, k], (Tissue.CORTICAL_BONE, Tissue.DIPLOE)))
            assert (filled & brain[:, :, k]).sum() == brain[:, :, k].sum()


@pytest.mark.parametrize("index", range(4))
def test_fat_and_eyes_stay_outside_the_skull(index: int) -> None:
    truth = phantom_subject(7, index, "HEAD", grid=SMALL_HEAD)
    tissue = truth.anatomy.tissue
    brain = ndimage.binary_closing(np.isin(tissue, (Tissue.GRAY_MATTER, Tissue.WHITE_MATTER)), iterations=2)
    inside = ndimage.binary_erosion(brain, iterations=2)
    assert inside.sum() > 10_000
    assert not np.isin(tissue[inside], (Tissue.FAT, Tissue.VITREOUS, Tissue.SKIN)).any()


def test_subjects_repeat_by_seed_and_differ_between_indices(head: PhantomTruth) -> None:
    again = phantom_subject(3, 0, "HEAD", grid=SMALL_HEAD)
    np.testing.assert_array_equal(again.mr, head.mr)
    np.testing.assert_array_equal(again.ct_hu, head.ct_hu)
    np.testing.assert_array_equal(again.lesion_mask, head.lesion_mask)
    other = phantom_subject(3, 1, "HEAD", grid=SMALL_HEAD)
    assert (other.anatomy.tissue != head.anatomy.tissue).mean() > 0.02


@pytest.mark.parametrize("name", ["head", "pelvis"])
def test_lesions_lie_apart_inside_soft_tissue_and_spare_bone(name: str, request: pytest.FixtureRequest) -> None:
    truth: PhantomTruth = request.getfixturevalue(name)
    assert 2 <= len(truth.lesions) <= 4
    assert set(np.unique(truth.lesion_mask)) == {0, *(lesion.value for lesion in truth.lesions)}
    for lesion in truth.lesions:
        center = tuple(np.rint(truth.geometry.to_index(lesion.center_mm)).astype(int))
        assert truth.anatomy.lesion_site[center]
        mask = truth.lesion_mask == lesion.value
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] <= 3
        assert not np.isin(truth.anatomy.tissue[mask], (Tissue.CORTICAL_BONE, Tissue.AIR, Tissue.SKIN)).any()
    total = sum(int((lesion.weight > 0.5).sum()) for lesion in truth.lesions)
    assert total == (truth.lesion_mask > 0).sum()


def lesion_features(lesion_class: str, seed: int) -> list[tuple[float, float, float]]:
    """Per lesion: center minus rim signal, mean signal over the surroundings, compactness of the outline."""
    grid = PhantomGrid((88, 104, 40), (2.5, 2.5, 4.0), (9.0, 11.0))
    truth = phantom_subject(seed, 0, "HEAD", grid=grid, lesion_classes=[lesion_class] * 3)
    features = []
    for lesion in truth.lesions:
        mask = truth.lesion_mask == lesion.value
        near = ndimage.binary_dilation(mask, iterations=3) & (truth.lesion_mask == 0) & truth.anatomy.lesion_site
        background = float(np.median(truth.mr[near]))
        center = tuple(np.rint(truth.geometry.to_index(lesion.center_mm)).astype(int))
        rim = mask & ~ndimage.binary_erosion(mask)
        inside = truth.mr[mask].mean() / background
        features.append(((float(truth.mr[center]) - truth.mr[rim].mean()) / background, inside, float(mask.sum())))
    return features


def test_lesion_classes_are_separable_by_simple_features() -> None:
    features = {
        name: np.array([row for seed in (1, 2) for row in lesion_features(name, seed)]) for name in LESION_CLASSES
    }
    cyst, ring, spiculated = (features[name] for name in ("cyst", "ring", "spiculated"))
    assert cyst[:, 1].max() < 0.85
    assert ring[:, 1].min() > 0.85
    assert spiculated[:, 1].min() > 1.05
    assert ring[:, 0].max() < -0.2
    assert spiculated[:, 0].min() > ring[:, 0].max()


def test_cysts_turn_from_dark_to_bright_between_t1_and_t2() -> None:
    t1 = phantom_subject(4, 0, "HEAD", "T1", grid=SMALL_HEAD, lesion_classes=["cyst"])
    t2 = phantom_subject(4, 0, "HEAD", "T2", grid=SMALL_HEAD, lesion_classes=["cyst"])
    np.testing.assert_array_equal(t1.lesion_mask, t2.lesion_mask)
    core = ndimage.binary_erosion(t1.lesion_mask > 0)
    brain = t1.anatomy.lesion_site & (t1.lesion_mask == 0)
    assert t1.mr[core].mean() < 0.6 * t1.mr[brain].mean()
    assert t2.mr[core].mean() > 1.8 * t2.mr[brain].mean()
    assert t1.ct_hu[core].mean() == pytest.approx(10, abs=8)


def test_unknown_parts_and_classes_are_refused() -> None:
    with pytest.raises(InputError, match="HEAD, PELVIS"):
        phantom_subject(0, 0, "KNEE")
    with pytest.raises(InputError, match="known class"):
        phantom_subject(0, 0, lesion_classes=["wart"])
