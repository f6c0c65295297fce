"""Every rule of the contact sheet finds the fault that is planted for it, and leaves sound phantoms alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.geometry import Geometry
from pipeline.phantom import PhantomGrid
from pipeline.phantom.subject import PhantomTruth, phantom_subject
from pipeline.report.cohort_flags import ALL_MEANINGS, LEAST_SERIES, Member, cohort_flags, meaning
from pipeline.report.quality_flags import MEANINGS, volume_flags
from pipeline.report.quality_measures import QUANTILE_LEVELS, Measures, measure

GRIDS = {
    "HEAD": PhantomGrid((76, 88, 32), (2.9, 2.9, 5.0), (9.0, 12.0)),
    "PELVIS": PhantomGrid((80, 60, 20), (4.9, 4.9, 7.0), (10.0, 15.0)),
}
Voxels = npt.NDArray[np.int16]


@cache
def truth(part: str = "HEAD", index: int = 0) -> PhantomTruth:
    return phantom_subject(5, index, part, grid=GRIDS[part])


def codes(voxels: Voxels, modality: str | None, geometry: Geometry | None = None) -> set[str]:
    return {flag.code for flag in volume_flags(measure(voxels, geometry or truth().geometry, modality))}


@pytest.mark.parametrize("part", ["HEAD", "PELVIS"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_sound_phantom_raises_no_flag(part: str, index: int, modality: str) -> None:
    made = truth(part, index)
    assert codes(made.mr if modality == "MR" else made.ct_hu, modality, made.geometry) == set()


def _without_slices(voxels: Voxels) -> Voxels:
    return np.delete(voxels, np.s_[13:20], axis=2)


def _zeroed(voxels: Voxels) -> Voxels:
    voxels[:, :, 15] = 0
    return voxels


def _noise_only(voxels: Voxels) -> Voxels:
    voxels[:, :, 15] = voxels[:, :, -1]
    return voxels


FAULTS: list[tuple[str, str, Callable[[Voxels], Voxels]]] = [
    ("INVERTED", "MR", lambda voxels: np.int16(1600) - voxels),
    ("INVERTED", "CT", lambda voxels: np.int16(2000) - voxels),
    ("CLIPPED", "MR", lambda voxels: np.minimum(voxels, np.int16(np.percentile(voxels[voxels > 200], 80)))),
    ("CT_WITHOUT_AIR", "CT", lambda voxels: voxels + np.int16(1024)),
    ("CT_WITHOUT_SOFT_TISSUE", "CT", lambda voxels: np.where(voxels > -500, voxels + np.int16(1500), voxels)),
    ("CT_WITHOUT_AIR", "CT", lambda voxels: np.clip(voxels, -160, 240).astype(np.int16)),
    ("CT_BELOW_AIR", "CT", lambda voxels: np.where(voxels < -950, np.int16(-3024), voxels)),
    ("MR_WITH_NEGATIVES", "MR", lambda voxels: voxels - np.int16(300)),
    ("CONSTANT_SLICES", "MR", _zeroed),
    ("EMPTY_SLICES", "MR", _zeroed),
    ("EMPTY_SLICES", "CT", lambda voxels: np.concatenate([voxels, np.full_like(voxels, -1000)], axis=2)[..., :-1]),
    ("TOUCHES_BORDER", "MR", lambda voxels: voxels[24:]),
    ("TOUCHES_BORDER", "CT", lambda voxels: voxels[:, :60]),
    ("NO_BACKGROUND", "MR", lambda voxels: np.random.default_rng(0).integers(0, 255, voxels.shape).astype(np.int16)),
    ("LOW_CONTRAST", "MR", lambda voxels: (1000 + voxels // 20).astype(np.int16)),
    ("SMALL_BODY", "CT", lambda voxels: np.full_like(voxels, -1000)),
]


@pytest.mark.parametrize(
    ("code", "modality", "plant"), FAULTS, ids=[f"{c}-{m}-{n}" for n, (c, m, _) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(code: str, modality: str, plant: Callable[[Voxels], Voxels]) -> None:
    made = truth()
    voxels = plant((made.mr if modality == "MR" else made.ct_hu).copy())
    assert code in codes(voxels, modality, Geometry(voxels.shape, made.geometry.affine))


def test_missing_slices_are_found_with_their_place() -> None:
    made = phantom_subject(5, 0, grid=PhantomGrid((76, 88, 64), (2.9, 2.9, 2.5), (9.0, 12.0)))
    assert codes(made.mr, "MR", made.geometry) == set()
    voxels = np.delete(made.mr, np.s_[40:48], axis=2)
    flags = volume_flags(measure(voxels, Geometry(voxels.shape, made.geometry.affine), "MR"))
    (found,) = [flag.found for flag in flags if flag.code == "SLICE_JUMP"]
    assert "after slice 40 of 56" in found


def test_an_mr_under_the_name_of_a_ct_is_found() -> None:
    assert {"CT_WITHOUT_AIR"} <= codes(truth().mr, "CT")


def test_a_ct_under_the_name_of_an_mr_is_found() -> None:
    assert "MR_WITH_NEGATIVES" in codes(truth().ct_hu, "MR")


def test_a_volume_of_one_value_is_measured_and_flagged() -> None:
    found = codes(np.full((20, 20, 10), 7, np.int16), "MR", Geometry((20, 20, 10), np.eye(4)))
    assert {"CONSTANT_SLICES", "LOW_CONTRAST"} <= found


def test_a_source_that_names_no_modality_is_flagged() -> None:
    assert codes(truth().mr, None) == {"UNKNOWN_MODALITY"}


@pytest.mark.parametrize(("thickness", "raised"), [(3.9, False), (4.1, True)])
def test_thick_slices_are_flagged_from_four_to_one(thickness: float, raised: bool) -> None:
    made = truth()
    affine = np.diag([1.0, 1.0, thickness, 1.0])
    assert ("ANISOTROPIC" in codes(made.mr, "MR", Geometry(made.mr.shape, affine))) is raised


@pytest.mark.parametrize("side", ["R", "L", "A", "P"])
def test_the_side_at_which_the_body_is_cut_is_named(side: str) -> None:
    made = truth()
    cut = {"R": np.s_[:48], "L": np.s_[28:], "A": np.s_[:, :58], "P": np.s_[:, 30:]}[side]
    voxels = made.ct_hu[cut]
    border = measure(voxels, Geometry(voxels.shape, made.geometry.affine), "CT").border
    assert max(border, key=lambda name: border[name]) == side
    assert sum(share > 0.05 for share in border.values()) == 1


@pytest.mark.parametrize("part", ["HEAD", "PELVIS"])
@pytest.mark.parametrize("axis", [0, 1])
def test_15_mm_cut_off_are_flagged_and_a_field_of_view_up_to_the_skin_is_not(part: str, axis: int) -> None:
    made = truth(part)
    across = tuple(other for other in range(3) if other != axis)
    skin = int(np.flatnonzero((made.ct_hu > -300).any(axis=across))[-1]) + 2
    for cut_mm, raised in ((0.0, False), (15.0, True)):
        last = skin - round(cut_mm / made.geometry.spacing_mm[axis])
        voxels = made.ct_hu.take(range(last), axis)
        geometry = Geometry(voxels.shape, made.geometry.affine)
        assert ("TOUCHES_BORDER" in codes(voxels, "CT", geometry)) is raised


def test_noise_without_background_does_not_count_as_cut_off() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 12)).astype(np.int16)
    found = codes(noise, "MR", Geometry(noise.shape, np.diag([3.0, 3, 5, 1])))
    assert "NO_BACKGROUND" in found
    assert "TOUCHES_BORDER" not in found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_measures_in_the_patient_do_not_depend_on_how_axes_are_stored(
    order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    made = truth()
    plain = measure(made.ct_hu, made.geometry, "CT")
    affine = made.geometry.affine[:, [*order, 3]].copy()
    voxels = np.flip(made.ct_hu.transpose(order), flips)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
        affine[:3, axis] *= -1
    other = measure(voxels, Geometry(voxels.shape, affine), "CT")
    assert other.extent_mm == pytest.approx(plain.extent_mm)
    assert other.spacing_mm == pytest.approx(plain.spacing_mm)
    assert (other.minimum, other.maximum, other.low, other.high) == (
        plain.minimum,
        plain.maximum,
        plain.low,
        plain.high,
    )
    assert other.body_share == pytest.approx(plain.body_share)
    assert np.abs(np.subtract(other.center, plain.center)).max() <= 1
    assert other.histogram == plain.histogram


def test_shares_of_a_ct_equal_counts() -> None:
    voxels = np.full((10, 10, 10), 0, np.int16)
    voxels[:, :, :3] = -1000
    voxels[:, :, 3:5] = -2000
    found = measure(voxels, Geometry(voxels.shape, np.eye(4)), "CT")
    assert (found.air, found.soft_tissue, found.below_air) == pytest.approx((0.3, 0.5, 0.2))
    assert sum(found.histogram) == 800, "values below the axis are not counted"
    assert (found.minimum, found.maximum, found.slices, found.flat_slices) == (-2000, 0, 10, 10)


def test_every_rule_has_its_meaning() -> None:
    raised = {code for code, *_ in FAULTS} | {"SLICE_JUMP", "ANISOTROPIC", "UNKNOWN_MODALITY"}
    assert raised == set(MEANINGS), "each rule is tested by a planted fault"
    assert all(known.weight in {1, 2, 3} and known.rule and known.look for known in ALL_MEANINGS.values())
    assert meaning("NEW_FLAG_OF_INGEST").weight == 1


# Comparison with the kind


def members(count: int = 8) -> list[Member]:
    even = tuple(QUANTILE_LEVELS.tolist())
    kind = ("MR", "T1", "HEAD")
    return [Member(f"ser-{n}", kind, (1.0, 1.0, 3.0), (240.0, 240.0, 160.0), even) for n in range(count)]


def flagged(group: list[Member]) -> dict[str, set[str]]:
    return {series: {flag.code for flag in flags} for series, flags in cohort_flags(group).items()}


def test_equal_series_raise_nothing() -> None:
    assert flagged(members()) == {}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"spacing_mm": (1.0, 1.0, 5.0)}, "OUTLIER_SPACING"),
        ({"spacing_mm": (0.7, 1.0, 3.0)}, "OUTLIER_SPACING"),
        ({"extent_mm": (240.0, 240.0, 90.0)}, "OUTLIER_COVERAGE"),
        ({"extent_mm": (120.0, 240.0, 160.0)}, "OUTLIER_COVERAGE"),
        ({"quantiles": tuple((QUANTILE_LEVELS**6).tolist())}, "OUTLIER_HISTOGRAM"),
    ],
)
def test_the_one_that_differs_is_flagged_alone(change: dict[str, tuple[float, ...]], code: str) -> None:
    group = members()
    group[3] = replace(group[3], **change)  # type: ignore[arg-type]
    assert flagged(group) == {"ser-3": {code}}


def test_few_series_have_no_habit() -> None:
    group = members(LEAST_SERIES - 1)
    group[0] = replace(group[0], spacing_mm=(9.0, 9.0, 9.0), extent_mm=(1.0, 1.0, 1.0))
    assert flagged(group) == {}


def test_another_kind_is_compared_with_its_own() -> None:
    others = [
        replace(member, series_id=f"ct-{n}", kind=("CT", None, "HEAD"), spacing_mm=(2.0, 2.0, 6.0))
        for n, member in enumerate(members())
    ]
    assert flagged(members() + others) == {}


def test_without_a_usual_spacing_none_is_unusual() -> None:
    group = [replace(member, spacing_mm=(1.0 + n, 1.0, 3.0)) for n, member in enumerate(members())]
    assert "OUTLIER_SPACING" not in {code for found in flagged(group).values() for code in found}


def test_a_darker_or_brighter_scan_of_equal_contrast_is_no_outlier() -> None:
    made = [truth("HEAD", index % 3) for index in range(6)]
    group = []
    for number, one in enumerate(made):
        found: Measures = measure((one.mr * (0.5 + number / 4)).astype(np.int16), one.geometry, "MR")
        group.append(Member(f"ser-{number}", ("MR",), found.spacing_mm, found.extent_mm, found.quantiles))
    assert flagged(group) == {}


def test_another_contrast_under_the_same_name_is_found() -> None:
    group = []
    for number in range(7):
        made = phantom_subject(5, number, sequence="T2" if number == 6 else "T1", grid=GRIDS["HEAD"])
        found = measure(made.mr, made.geometry, "MR")
        group.append(Member(f"ser-{number}", ("MR", "T1"), found.spacing_mm, found.extent_mm, found.quantiles))
    assert flagged(group) == {"ser-6": {"OUTLIER_HISTOGRAM"}}
