import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.intensity import GREY_MAP, from_int16
from pipeline.phantom import PhantomGrid, phantom_subject
from pipeline.prepare.mr_to_ct import prepare_volume_set
from pipeline.prepared_set import from_slices, read_volume_set
from pipeline.records import silent
from pipeline.resampling import resample
from pipeline.settings import PrepareMRToCTSettings

SHAPE = (40, 44, 6)
MARKER_MM = (-36.0, 22.0, 12.0)
"""On the left, in front, up: RAS+ mm."""


def settings(**changes):
    plain = {"spacing_mm": (4.0, 4.0, 6.0), "n4": {"enabled": False}}
    return PrepareMRToCTSettings.model_validate(plain | changes)


def grid(shape=SHAPE, spacing=(4.0, 4.0, 6.0), shift=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s + d for n, s, d in zip(shape, spacing, shift, strict=True)]
    return Geometry(shape, affine)


def body_on(geometry, body, marker, air):
    """An elliptic cylinder with a ball of 9 mm around the marker's place."""
    x, y, z = np.moveaxis(geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1)), -1, 0)
    inside = (x / 64) ** 2 + (y / 72) ** 2 < 1
    distance = np.sqrt((x - MARKER_MM[0]) ** 2 + (y - MARKER_MM[1]) ** 2 + (z - MARKER_MM[2]) ** 2)
    values = np.where(inside, body, air).astype(np.float32)
    return np.where(distance < 9, marker, values).astype(np.int16)


def flipped(voxels, geometry):
    """The same volume stored as (k, -i, j)."""
    affine = geometry.affine[:, [2, 0, 1, 3]].copy()
    affine[:, 3] += affine[:, 1] * (geometry.shape[0] - 1)
    affine[:, 1] *= -1
    return voxels.transpose(2, 0, 1)[:, ::-1], affine


def textured(geometry, seed=0):
    mr = body_on(geometry, 400, 900, 0)
    return mr + np.where(mr > 0, np.random.default_rng(seed).integers(-30, 30, mr.shape), 0).astype(np.int16)


def add_mr(maker, subject="s0", geometry=None, **changes):
    geometry = geometry or grid()
    return maker.volume(subject, "MR", textured(geometry), geometry.affine, **changes)


def add_ct(maker, subject="s0", geometry=None, **changes):
    geometry = geometry or grid()
    return maker.volume(subject, "CT", body_on(geometry, 40, 1200, -1000), geometry.affine, **changes)


def prepared(maker, tmp_path, splits=None, **changes):
    catalog = maker.write()
    subjects = catalog.series["subject_id"].unique()
    chosen = splits or dict.fromkeys(subjects, "train")
    facts = prepare_volume_set(catalog, chosen, settings(**changes), tmp_path / "out", silent)
    return facts, read_volume_set(tmp_path / "out")


def marker_of(voxels, above):
    return np.array(ndimage.center_of_mass(np.where(voxels > above, voxels - above, 0)))


@pytest.mark.parametrize(("there", "missing"), [("MR", "CT"), ("CT", "MR")])
def test_one_modality_alone_is_refused(maker, tmp_path, there, missing):
    (add_mr if there == "MR" else add_ct)(maker)
    with pytest.raises(InputError, match="needs MR and CT") as caught:
        prepared(maker, tmp_path)
    assert caught.value.found == f"no {missing} in the catalog"


def test_a_body_part_that_leaves_nothing_is_named(maker, tmp_path):
    add_mr(maker, body_part="HEAD")
    add_ct(maker, body_part="HEAD")
    with pytest.raises(InputError) as caught:
        prepared(maker, tmp_path, body_parts=("PELVIS",))
    assert caught.value.found == "no CT and no MR of body parts PELVIS in the catalog"


def test_body_parts_choose_scans(maker, tmp_path):
    for subject, part in (("s0", "HEAD"), ("s1", "PELVIS"), ("s2", None)):
        add_mr(maker, subject, body_part=part)
        add_ct(maker, subject, body_part=part)
    facts, found = prepared(maker, tmp_path, body_parts=("pelvis",))
    assert set(found.table["subject_id"]) == {"s1"}
    assert (facts["mr_volumes"], facts["ct_volumes"], facts["subjects"]) == (1, 1, {"train": 1})


def slice_rows(modality, case, numbers, paired=True):
    return [
        {
            "subject_id": case,
            "subject_source": "case",
            "modality": modality,
            "slice_index": number,
            "pair_key": f"{case}-{number}" if paired else None,
        }
        for number in numbers
    ]


def grey_slices(count, size=(48, 52), seed=0):
    """Round heads of growing size with a bright spot on the picture's left, dark around."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(seed)
    slices = []
    for number in range(count):
        body = ((rows - 24) / (14 + number)) ** 2 + ((columns - 26) / 17) ** 2 < 1
        slices.append(np.where(body, 120 + rng.integers(0, 40, size) + 80 * (columns < 16), 0))
    return np.stack(slices).astype(np.uint8)


def test_scans_in_hu_beside_pictures_are_refused(maker, tmp_path):
    add_mr(maker)
    maker.pictures(grey_slices(1), slice_rows("CT", "c0", [0], paired=False), "slice_pairs")
    with pytest.raises(InputError, match="either in HU or in grey"):
        prepared(maker, tmp_path)


def test_a_registered_ct_is_found_by_its_frame_of_reference(maker, tmp_path):
    add_mr(maker, frame_of_reference_uid="1.2.3")
    add_ct(maker, frame_of_reference_uid="1.2.9")
    wanted = add_ct(maker, frame_of_reference_uid="1.2.3")
    add_ct(maker, "s1", frame_of_reference_uid="1.2.3")  # another patient's number is no proof
    facts, found = prepared(maker, tmp_path)
    (mr,) = found.volumes("MR", ["train"])
    partner = found.row(mr["pair_volume"])
    assert partner["series_id"] == wanted
    assert not partner["own_grid"]
    assert (facts["pairs"], facts["mr_volumes"], facts["ct_volumes"]) == (1, 1, 3)
    own = [row for row in found.volumes("CT", ["train"]) if row["own_grid"]]
    assert len(own) == 3
    assert all(row["pair_volume"] == -1 for row in own)


def test_without_a_frame_of_reference_only_the_settings_make_pairs(maker, tmp_path):
    add_mr(maker)
    add_ct(maker)
    add_mr(maker, "s1")
    facts, _ = prepared(maker, tmp_path)
    assert facts["pairs"] == 0
    facts, found = prepared(maker, tmp_path, pair_by="subject")
    assert facts["pairs"] == 1
    pairs = {row["subject_id"]: row["pair_volume"] >= 0 for row in found.volumes("MR", ["train"])}
    assert pairs == {"s0": True, "s1": False}


def test_mr_and_ct_of_one_grid_share_it_voxel_by_voxel(maker, tmp_path):
    add_mr(maker, frame_of_reference_uid="1.2")
    add_ct(maker, frame_of_reference_uid="1.2")
    _, found = prepared(maker, tmp_path)
    (mr,) = found.volumes("MR", ["train"])
    ct = found.row(mr["pair_volume"])
    assert mr["affine"] == ct["affine"]
    geometry = grid()
    assert np.array_equal(from_slices(np.asarray(found.voxels(ct))), body_on(geometry, 40, 1200, -1000))
    assert np.reshape(mr["affine"], (4, 4)) == pytest.approx(geometry.affine)
    low, high = mr["mr_low"], mr["mr_high"]
    units = (from_slices(from_int16(found.voxels(mr))) + 1) * (high - low) / 1.6 + low
    unclipped = (textured(geometry) > low) & (textured(geometry) < high)
    np.testing.assert_allclose(units[unclipped], textured(geometry)[unclipped], atol=0.1)


@pytest.mark.parametrize("stored_otherwise", [False, True])
def test_a_ct_of_another_grid_lands_on_the_voxels_of_its_mr(maker, tmp_path, stored_otherwise):
    mr_grid = grid()
    ct_grid = grid((70, 64, 17), (2.7, 3.1, 2.5), (3.0, -4.0, 1.5))
    ct, affine = body_on(ct_grid, 40, 1200, -1000), ct_grid.affine
    if stored_otherwise:
        ct, affine = flipped(ct, ct_grid)
    add_mr(maker, geometry=mr_grid, frame_of_reference_uid="1.2")
    maker.volume("s0", "CT", ct, affine, frame_of_reference_uid="1.2")
    _, found = prepared(maker, tmp_path)
    (row,) = found.volumes("MR", ["train"])
    partner = found.row(row["pair_volume"])
    in_mr = marker_of(from_slices(from_int16(found.voxels(row))), 0.8)
    in_ct = marker_of(from_slices(np.asarray(found.voxels(partner), np.float32)), 400)
    assert in_ct == pytest.approx(in_mr, abs=0.3)
    world = np.reshape(row["affine"], (4, 4)) @ [*in_ct, 1]
    assert world[:3] == pytest.approx(MARKER_MM, abs=1.5)
    # The grid of its own keeps the CT's field of view.
    own = next(item for item in found.volumes("CT", ["train"]) if item["own_grid"])
    own_marker = marker_of(from_slices(np.asarray(found.voxels(own), np.float32)), 400)
    assert (np.reshape(own["affine"], (4, 4)) @ [*own_marker, 1])[:3] == pytest.approx(MARKER_MM, abs=1.5)


def test_beyond_the_ct_field_of_view_there_is_air(maker, tmp_path):
    add_mr(maker, frame_of_reference_uid="1.2")
    add_ct(maker, geometry=grid((40, 44, 3), shift=(0, 0, -9.0)), frame_of_reference_uid="1.2")
    _, found = prepared(maker, tmp_path)
    (row,) = found.volumes("MR", ["train"])
    partner = found.row(row["pair_volume"])
    assert np.all(found.voxels(partner)[4:] == -1000)
    assert not found.mask(partner)[4:].any()
    assert found.mask(partner)[:3].any()


def test_hu_beyond_twelve_bits_are_clipped_and_the_rest_is_exact(maker, tmp_path):
    hu = body_on(grid(), 40, 1200, -1000)
    hu[20, 20, 3], hu[22, 20, 3] = 9000, -3000
    add_mr(maker)
    maker.volume("s0", "CT", hu, grid().affine)
    _, found = prepared(maker, tmp_path)
    (row,) = found.volumes("CT", ["train"])
    assert np.array_equal(from_slices(np.asarray(found.voxels(row))), hu.clip(-1024, 3071))


def test_the_outside_of_a_scan_is_no_body(maker, tmp_path):
    add_mr(maker)
    add_ct(maker)
    _, found = prepared(maker, tmp_path)
    truth = body_on(grid(), 1, 1, 0) > 0
    for modality in ("MR", "CT"):
        (row,) = found.volumes(modality, ["train"])
        mask = from_slices(np.asarray(found.mask(row))) > 0
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert dice > 0.97, modality


def test_splits_come_from_the_subjects(maker, tmp_path):
    splits = {"s0": "train", "s1": "validation", "s2": "test"}
    for subject in splits:
        add_mr(maker, subject)
        add_ct(maker, subject)
    facts, found = prepared(maker, tmp_path, splits)
    assert dict(zip(found.table["subject_id"], found.table["split"], strict=True)) == splits
    assert facts["subjects"] == {"train": 1, "validation": 1, "test": 1}


def test_slice_pairs_become_one_volume_a_case_in_order(maker, tmp_path):
    mr, ct = grey_slices(4), grey_slices(4, seed=1)
    shuffled = [2, 0, 3, 1]
    maker.pictures(mr[shuffled], slice_rows("MR", "c0", shuffled), "slice_pairs")
    maker.pictures(ct, slice_rows("CT", "c0", range(4)), "slice_pairs")
    facts, found = prepared(maker, tmp_path)
    (row,) = found.volumes("MR", ["train"])
    partner = found.row(row["pair_volume"])
    assert np.array_equal(found.voxels(partner), ct)
    assert (facts["unit"], facts["spacing_mm"], facts["pairs"]) == ("grey", None, 1)
    assert facts["ct_map"]["knots_hu"] == list(GREY_MAP.knots_hu)
    low, high = row["mr_low"], row["mr_high"]
    grey = (from_int16(found.voxels(row)) + 1) * (high - low) / 1.6 + low
    unclipped = (mr > low) & (mr < high)
    np.testing.assert_allclose(grey[unclipped], mr[unclipped], atol=0.05)
    assert row["affine"] is None
    spot = from_int16(found.voxels(row))
    assert spot[0, 24, 12] > spot[0, 24, 40], "pictures are kept as they are shown"


def test_slices_without_a_partner_form_volumes_of_their_own(maker, tmp_path):
    maker.pictures(grey_slices(3), slice_rows("MR", "c0", range(3)), "slice_pairs")
    maker.pictures(grey_slices(2, seed=1), slice_rows("CT", "c0", range(1, 3)), "slice_pairs")
    maker.pictures(grey_slices(2, seed=2), slice_rows("CT", "c1", range(2), paired=False), "slice_pairs")
    facts, found = prepared(maker, tmp_path)
    shapes = sorted((row["modality"], row["slices"], row["pair_volume"] >= 0) for row in found.table.to_dicts())
    assert shapes == [("CT", 2, False), ("CT", 2, True), ("MR", 1, False), ("MR", 2, True)]
    assert (facts["mr_volumes"], facts["ct_volumes"], facts["pairs"]) == (2, 2, 1)


def test_sixteen_bit_slice_pairs_are_refused_rather_than_wrapped(maker, tmp_path):
    maker.pictures(grey_slices(2).astype(np.uint16) * 4, slice_rows("MR", "c0", range(2)), "slice_pairs")
    maker.pictures(grey_slices(2), slice_rows("CT", "c0", range(2)), "slice_pairs")
    with pytest.raises(InputError, match="8 bits"):
        prepared(maker, tmp_path)


def test_a_refused_scan_leaves_no_open_files(maker, tmp_path):
    maker.volume("s0", "MR", np.full(SHAPE, 7), grid().affine)
    add_ct(maker)
    with pytest.raises(InputError):
        prepared(maker, tmp_path)


def test_a_phantom_keeps_its_marker_on_the_left_and_its_pair_registered(maker, tmp_path):
    truth = phantom_subject(3, 0, "HEAD", grid=PhantomGrid((48, 56, 14), (4.5, 4.5, 11.0), (9.0, 12.0)))
    finer = grid((54, 62, 18), (4.0, 4.0, 8.5))
    ct = resample(truth.ct_noise_free_hu, truth.geometry.affine, finer, fill=-1000.0)
    maker.volume("s0", "MR", truth.mr[::-1], flip_first_axis(truth.geometry), frame_of_reference_uid="1.2")
    maker.volume("s0", "CT", ct, finer.affine, frame_of_reference_uid="1.2")
    facts, found = prepared(maker, tmp_path, spacing_mm=(4.5, 4.5, 11.0), n4={"enabled": True})
    assert facts["pairs"] == 1
    (row,) = found.volumes("MR", ["train"])
    assert np.reshape(row["affine"], (4, 4)) == pytest.approx(truth.geometry.affine, abs=1e-9)
    hu = from_slices(np.asarray(found.voxels(found.row(row["pair_volume"])), np.float32))
    middle = (slice(8, 40), slice(8, 48), slice(3, 11))
    assert np.corrcoef(hu[middle].ravel(), truth.ct_noise_free_hu[middle].ravel())[0, 1] > 0.9
    units = from_slices(from_int16(found.voxels(row)))
    inside = from_slices(np.asarray(found.mask(row))) > 0
    assert np.corrcoef(units[inside], truth.mr[inside])[0, 1] > 0.9
    left = truth.geometry.to_index(truth.anatomy.marker_mm)
    assert left[0] < 24, "i grows to the right, the marker is on the left"


def flip_first_axis(geometry):
    affine = geometry.affine.copy()
    affine[:, 3] += affine[:, 0] * (geometry.shape[0] - 1)
    affine[:, 0] *= -1
    return affine


def test_one_mr_without_contrast_is_left_out_by_name_and_the_others_go_on(maker, tmp_path):
    add_mr(maker, "s0")
    maker.volume("s1", "MR", np.full(SHAPE, 7), grid().affine)
    add_ct(maker, "s0")
    facts, volumes = prepared(maker, tmp_path)
    assert facts["mr_volumes"] == 1
    assert len(facts["left_out"]) == 1
    assert next(iter(facts["left_out"])) not in volumes.table["series_id"].to_list()
    assert volumes.facts["left_out"] == facts["left_out"]


COUCH_ROW = 2


def with_couch(geometry):
    """A CT on a couch of two rows below the back, and a head holder beside."""
    hu = body_on(geometry, 40, 1200, -1000)
    hu[4:36, COUCH_ROW : COUCH_ROW + 1] = 300
    hu[2, 10:30] = 150
    return hu


def test_couch_and_holder_become_air_and_the_body_stays_as_it_is(maker, tmp_path):
    geometry = grid()
    add_mr(maker, frame_of_reference_uid="1.2")
    maker.volume("s0", "CT", with_couch(geometry), geometry.affine, frame_of_reference_uid="1.2")
    _, found = prepared(maker, tmp_path)
    for row in found.volumes("CT", ["train"]):
        hu = from_slices(np.asarray(found.voxels(row)))
        body = body_on(geometry, 40, 1200, -1000)
        assert np.array_equal(hu, body), "own grid" if row["own_grid"] else "grid of the MR"


def test_what_lies_outside_can_be_kept(maker, tmp_path):
    geometry = grid()
    add_mr(maker)
    maker.volume("s0", "CT", with_couch(geometry), geometry.affine)
    _, found = prepared(maker, tmp_path, ct_outside_body="keep")
    (row,) = found.volumes("CT", ["train"])
    assert np.array_equal(from_slices(np.asarray(found.voxels(row))), with_couch(geometry))


def test_lesions_of_a_subject_are_known_of_all_its_volumes(maker, tmp_path):
    """What one side shows more of than the other is compared before training."""
    series = add_mr(maker, "ill")
    add_ct(maker, "ill")
    add_ct(maker, "well")
    maker.lesion(series, "tumor", None, None)
    _, volumes = prepared(maker, tmp_path)
    known = {(row["subject_id"], row["modality"]): row["lesion_classes"] for row in volumes.table.to_dicts()}
    assert known == {("ill", "MR"): ["tumor"], ("ill", "CT"): ["tumor"], ("well", "CT"): []}


def test_without_lesions_in_the_catalog_nothing_is_known_of_them(maker, tmp_path):
    add_mr(maker)
    add_ct(maker)
    _, volumes = prepared(maker, tmp_path)
    assert volumes.table["lesion_classes"].to_list() == [None] * volumes.table.height
