import itertools

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.generate.stage import translate_mr_to_ct
from pipeline.intensity import CT_MAP, GREY_MAP
from pipeline.settings import RunSettings

SHAPE = (22, 26, 8)
SPACING = (3.0, 2.5, 5.0)
MARKER = (5, 18, 5)
"""Left, in front, up, in voxels of the canonical grid."""

UIDS = {
    "study_uid": "2.25.1001",
    "series_uid": "2.25.1002",
    "frame_of_reference_uid": "2.25.1003",
    "patient_position": "HFS",
    "body_part": "HEAD",
}


def canonical_affine(spacing=SPACING):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.0, -40.5, 17.25)
    return affine


def body_hu(shape=SHAPE):
    """Soft tissue of many HU in air, and a bright marker off every plane of symmetry."""
    i, j, k = np.indices(shape)
    middle = [(n - 1) / 2 for n in shape]
    inside = ((i - middle[0]) / (0.4 * shape[0])) ** 2 + ((j - middle[1]) / (0.42 * shape[1])) ** 2 < 1
    hu = np.where(inside, 20 + 3 * i - 2 * j + 5 * k, -1000)
    hu[tuple(slice(m - 1, m + 2) for m in MARKER)] = 1500
    return hu.astype(np.int16)


def stored_otherwise(axes, flips, affine=None, shape=SHAPE):
    """Affine and shape of the canonical grid stored in another order: axis n is canonical axis ``axes[n]``."""
    affine = canonical_affine() if affine is None else affine
    new = affine[:, [*axes, 3]].copy()
    sizes = tuple(shape[axis] for axis in axes)
    for axis, backwards in enumerate(flips):
        if backwards:
            new[:, 3] += new[:, axis] * (sizes[axis] - 1)
            new[:, axis] *= -1
    return sizes, new


def run(world, unit="HU", **changes):
    records = world.records(unit)
    settings = RunSettings.model_validate({"device": "cpu", "generate": {"mr_to_ct": changes}})
    record = translate_mr_to_ct(world.workspace, settings, records["catalog"], records["prepared"], records["trained"])
    folder = record.path(world.workspace.root)
    return record, folder, pl.read_parquet(folder / "cases.parquet").to_dicts()


def read_series(folder):
    """Slices of a CT series by pydicom, lowest first: datasets, HU (i, j, k) and affine in RAS+, worked out here."""
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    hu = np.stack([d.pixel_array.T * int(d.RescaleSlope) + int(d.RescaleIntercept) for d in slices], axis=-1)
    first, last = (np.array(slices[n].ImagePositionPatient, float) for n in (0, -1))
    affine = np.eye(4)
    affine[:3, 0] = np.array(slices[0].ImageOrientationPatient[:3], float) * float(slices[0].PixelSpacing[1])
    affine[:3, 1] = np.array(slices[0].ImageOrientationPatient[3:], float) * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    return slices, hu, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def as_canonical(voxels, affine):
    found = nib.as_closest_canonical(nib.Nifti1Image(voxels.astype(np.int16), affine))
    return np.asarray(found.dataobj), found.affine


STORED = [
    ((0, 1, 2), (False, False, False)),
    ((0, 1, 2), (True, True, False)),
    ((0, 1, 2), (True, False, True)),
    ((1, 2, 0), (True, False, False)),  # sagittal
    ((0, 2, 1), (True, True, True)),  # coronal
    ((2, 1, 0), (False, True, True)),
]


@pytest.mark.parametrize(("axes", "flips"), STORED)
@pytest.mark.usefixtures("identity_translator")
def test_pseudo_ct_lies_on_the_grid_of_its_mr_in_nifti_and_dicom(world, axes, flips):
    hu = body_hu()
    sizes, native = stored_otherwise(axes, flips)
    world.add("a", CT_MAP.encode(hu), canonical_affine(), sizes, native, **UIDS)
    record, folder, (case,) = run(world)

    nifti = nib.load(folder / case["nifti_path"])
    assert nifti.shape == sizes
    np.testing.assert_allclose(nifti.affine, native, atol=1e-4)
    values, affine = as_canonical(np.asarray(nifti.dataobj), nifti.affine)
    assert np.abs(values - hu).max() <= 0
    np.testing.assert_allclose(affine, canonical_affine(), atol=1e-4)

    slices, dicom_hu, dicom_affine = read_series(folder / case["dicom_folder"])
    values, affine = as_canonical(dicom_hu, dicom_affine)
    assert np.array_equal(values, hu)
    np.testing.assert_allclose(affine, canonical_affine(), atol=1e-4)
    assert {d.StudyInstanceUID for d in slices} == {UIDS["study_uid"]}
    assert {d.FrameOfReferenceUID for d in slices} == {UIDS["frame_of_reference_uid"]}
    assert {d.Modality for d in slices} == {"CT"}
    assert slices[0].SeriesInstanceUID not in set(UIDS.values())
    assert {d.PatientID for d in slices} == {"sub-a"}
    assert record.facts["dicom_series"] == record.facts["cases"] == 1
    assert case["dicom_refusal"] is None


@pytest.mark.usefixtures("identity_translator")
def test_the_marker_stays_on_its_side_in_all_48_orders(world):
    hu = body_hu()
    grids = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            sizes, native = stored_otherwise(axes, flips)
            world.add(f"{len(grids):02d}", CT_MAP.encode(hu), canonical_affine(), sizes, native)
            grids.append(native)
    _, folder, cases = run(world, dicom=False)
    truth = (canonical_affine() @ [*MARKER, 1])[:3]
    for case, native in zip(cases, grids, strict=True):
        nifti = nib.load(folder / case["nifti_path"])
        place = ndimage.center_of_mass(np.asarray(nifti.dataobj) == 1500)
        np.testing.assert_allclose((native @ [*place, 1])[:3], truth, atol=1e-3)


@pytest.mark.usefixtures("identity_translator")
def test_a_native_grid_of_another_spacing_shows_the_same_places(world):
    hu = body_hu()
    native = np.diag([2.0, 2.0, 3.0, 1.0])
    native[:3, 3] = (-30.0, -40.0, 18.0)
    world.add("a", CT_MAP.encode(hu), canonical_affine(), (32, 32, 14), native, **UIDS)
    _, folder, (case,) = run(world)
    nifti = nib.load(folder / case["nifti_path"])
    np.testing.assert_allclose(nifti.affine, native, atol=1e-4)
    values = np.asarray(nifti.dataobj).astype(float)
    place = ndimage.center_of_mass(np.where(values > 600, values - 600, 0))
    truth = (canonical_affine() @ [*MARKER, 1])[:3]
    np.testing.assert_allclose((native @ [*place, 1])[:3], truth, atol=0.8)
    _, dicom_hu, dicom_affine = read_series(folder / case["dicom_folder"])
    assert np.array_equal(as_canonical(dicom_hu, dicom_affine)[0], as_canonical(values, native)[0])


def turned(degrees):
    """The canonical grid turned around the patient's long axis."""
    angle = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation @ canonical_affine()


@pytest.mark.usefixtures("identity_translator")
def test_an_oblique_mr_gets_nifti_on_its_grid_and_an_axial_series(world):
    affine = turned(12)
    hu = body_hu()
    world.add("a", CT_MAP.encode(hu), affine, SHAPE, affine, **UIDS)
    _, folder, (case,) = run(world)
    nifti = nib.load(folder / case["nifti_path"])
    np.testing.assert_allclose(nifti.affine, affine, atol=1e-4)
    assert np.array_equal(np.asarray(nifti.dataobj), hu)
    slices, dicom_hu, dicom_affine = read_series(folder / case["dicom_folder"])
    assert [float(v) for v in slices[0].ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    bright = np.where(dicom_hu > 600, dicom_hu - 600, 0)
    place = (dicom_affine @ [*ndimage.center_of_mass(bright), 1])[:3]
    np.testing.assert_allclose(place, (affine @ [*MARKER, 1])[:3], atol=1.0)
    assert slices[0].StudyInstanceUID == UIDS["study_uid"]


@pytest.mark.usefixtures("identity_translator")
def test_a_sheared_grid_gets_no_dicom_and_says_why(world):
    affine = canonical_affine()
    affine[1, 2] = 1.0
    world.add("a", CT_MAP.encode(body_hu()), affine, SHAPE, affine)
    record, folder, (case,) = run(world)
    assert case["dicom_folder"] is None
    assert "sheared" in case["dicom_refusal"]
    assert (folder / case["nifti_path"]).is_file()
    assert record.facts["dicom_series"] == 0


@pytest.mark.usefixtures("identity_translator")
def test_grey_pictures_get_arrays_only_and_say_why(world):
    grey = np.random.default_rng(0).integers(0, 256, SHAPE)
    world.add("a", GREY_MAP.encode(grey), None, SHAPE, None, unit="grey")
    _, folder, (case,) = run(world, unit="grey")
    assert (case["nifti_path"], case["dicom_folder"]) == (None, None)
    assert "pictures" in case["dicom_refusal"]
    stored = np.load(folder / case["prepared_path"])
    assert np.array_equal(stored, grey[::-1, ::-1].transpose(2, 1, 0))
    assert sorted(path.name for path in folder.rglob("*.dcm")) == []


@pytest.mark.usefixtures("identity_translator")
def test_dicom_that_was_not_asked_for_is_not_written(world):
    world.add("a", CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine())
    _, folder, (case,) = run(world, dicom=False)
    assert "not asked for" in case["dicom_refusal"]
    assert not [path for path in folder.rglob("*") if path.is_dir() and "dicom" in path.name]


@pytest.mark.usefixtures("identity_translator")
def test_outside_the_body_mask_files_hold_air(world):
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:16, 8:18] = 1
    world.add("a", np.full(SHAPE, 0.1, np.float32), canonical_affine(), SHAPE, canonical_affine(), mask=mask)
    _, folder, (case,) = run(world)
    values = np.asarray(nib.load(folder / case["nifti_path"]).dataobj)
    assert np.all(values[mask > 0] == round(float(CT_MAP.decode(np.array(0.1)))))
    assert np.all(values[:2] == -1000)
    assert np.all(values[:, -4:] == -1000)


@pytest.mark.usefixtures("identity_translator")
def test_only_the_chosen_splits_are_translated(world):
    for name, split in (("a", "train"), ("b", "test"), ("c", "validation")):
        world.add(name, CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine(), split=split)
    record, _, cases = run(world, dicom=False)
    assert [case["subject_id"] for case in cases] == ["sub-b"]
    record, _, cases = run(world, dicom=False, splits=["train", "validation"])
    assert sorted(case["subject_id"] for case in cases) == ["sub-a", "sub-c"]
    assert record.facts["slices"] == 2 * SHAPE[2]


def test_no_mr_in_the_chosen_splits_is_refused(world):
    world.add("a", CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine(), split="train")
    with pytest.raises(InputError, match="chosen splits") as caught:
        run(world)
    assert caught.value.found == "none in test"


def test_a_nifti_mr_gets_uids_of_its_own_that_its_subject_shares(world):
    for name in ("a", "b"):
        world.add(name, CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine())
    _, folder, cases = run(world)
    headers = [read_series(folder / case["dicom_folder"])[0][0] for case in cases]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        values = [str(getattr(header, name)) for header in headers]
        assert len(set(values)) == 2
        assert all(value.startswith("2.25.") and len(value) <= 64 for value in values)


def test_a_network_gives_equal_files_twice_and_states_its_hash(world, tmp_path):
    world.add("a", CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine(), **UIDS)
    record, folder, (case,) = run(world)
    twin = type(world)(tmp_path / "twin")
    twin.add("a", CT_MAP.encode(body_hu()), canonical_affine(), SHAPE, canonical_affine(), **UIDS)
    again, _, _ = run(twin)
    assert record.content_sha256 == again.content_sha256
    header = read_series(folder / case["dicom_folder"])[0][0]
    assert record.facts["model_sha256"][:12] in header.SoftwareVersions
    assert header.SyntheticData == "YES"
