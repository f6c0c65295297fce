import json
import shutil

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError
from pipeline.ingest.layouts.scans import _nifti_subject
from pipeline.scan_io import uid_from


def _stored(result, row):
    image = nib.load(result.catalog.folder / row["path"])
    return np.asarray(image.dataobj), image.affine


def _path_hash(result, name):
    return Pseudonymizer(result.workspace.identity_key()).path_hash(name)


def _lesion_csv(inputs, *rows):
    inputs.text("lesions.csv", "mask_path,image_path,mask_value,lesion_class\n" + "\n".join(rows) + "\n")


def test_voxels_and_geometry_of_dicom_equal_the_source_whatever_the_names(inputs, run_ingest):
    paths, voxels = inputs.dicom("series")
    for number, path in enumerate(reversed(paths)):
        path.rename(path.with_name(f"{number}.9.8"))
    (row,) = run_ingest().catalog.series.to_dicts()
    assert (row["kind"], row["source"], row["modality"], row["unit"]) == ("volume", "dicom", "CT", "HU")
    assert (row["body_part"], row["patient_position"]) == ("HEAD", "HFS")
    stored, affine = _stored(run_ingest(), row)
    np.testing.assert_array_equal(stored, np.clip(voxels, -1024, 3071))
    np.testing.assert_allclose(affine, inputs.affine, atol=1e-4)
    np.testing.assert_allclose(np.reshape(row["affine"], (4, 4)), inputs.affine, atol=1e-9)
    np.testing.assert_allclose(row["spacing_mm"], [1.5, 1.5, 4.0])


def test_voxels_and_geometry_of_nifti_equal_the_source(inputs, run_ingest):
    turned = np.array([[0, 0, 3.0, -10], [2.0, 0, 0, 5], [0, -1.0, 0, 7], [0, 0, 0, 1]])
    voxels = np.abs(inputs.voxels())
    inputs.nifti("sub-07/anat/sub-07_T1w.nii.gz", voxels, turned)
    (row,) = run_ingest().catalog.series.to_dicts()
    assert (row["source"], row["modality"], row["sequence"], row["unit"]) == ("nifti", "MR", "T1", "signal")
    stored, affine = _stored(run_ingest(), row)
    np.testing.assert_array_equal(stored, voxels)
    np.testing.assert_allclose(affine, turned, atol=1e-5)


def test_series_of_several_patients_in_one_folder_are_told_apart(inputs, run_ingest):
    truth = {}
    for number, patient in enumerate(["A", "B", "C"]):
        paths, voxels = inputs.dicom(f"tmp{number}", number, identity=inputs.identity(patient))
        truth[voxels.tobytes()] = patient
        for path in paths:
            (inputs.root / "all").mkdir(exist_ok=True)
            path.rename(inputs.root / "all" / f"{path.stem}{'xyz'[-number]}{number}.IMA")
        (inputs.root / f"tmp{number}").rmdir()
    result = run_ingest()
    found = {_stored(result, row)[0].astype(np.int16).tobytes() for row in result.catalog.series.to_dicts()}
    assert found == set(truth)
    assert result.record.facts["subjects"] == 3


def test_mr_and_ct_of_a_patient_share_subject_study_and_frame_all_remapped(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    inputs.dicom("ct", 2, "CT")
    rows = run_ingest().catalog.series.to_dicts()
    original = inputs.identity()
    for field, uid in (("study_uid", original.study_uid), ("frame_of_reference_uid", original.frame_of_reference_uid)):
        assert len({row[field] for row in rows}) == 1
        assert rows[0][field] != uid
    assert len({row["subject_id"] for row in rows}) == 1
    uids = [uid for row in rows for uid in row["sop_instance_uids"]]
    assert len(set(uids)) == 8
    stored = {str(pydicom.dcmread(path).SOPInstanceUID) for path in inputs.root.rglob("*.dcm")}
    assert not stored & set(uids)


def test_a_damaged_file_is_named_and_its_volume_refused_for_the_missing_slice(inputs, run_ingest):
    inputs.dicom("good", 1)
    paths, _ = inputs.dicom("bad", 2)
    paths[1].write_bytes(paths[1].read_bytes()[:-50])
    result = run_ingest()
    assert result.record.facts["series"] == 1
    rows = {row["reason"]: row for row in result.catalog.quarantine.to_dicts()}
    assert {reason: row["files"] for reason, row in rows.items()} == {"TRUNCATED": 1, "MISSING_SLICE": 3}
    assert rows["TRUNCATED"]["path_hash"] == _path_hash(result, "bad/0002.dcm")
    assert "190 of 240 bytes" in rows["TRUNCATED"]["found"]
    assert rows["MISSING_SLICE"]["found"] == "1 of 4 slices are damaged"


def test_an_undecodable_file_is_named_though_only_the_decoder_could_tell(inputs, run_ingest):
    inputs.dicom("good", 1)
    paths, _ = inputs.dicom("bad", 2)
    for path in paths:
        item = pydicom.dcmread(path)
        item.compress(JPEGLSLossless, generate_instance_uid=False)
        item.save_as(path)
    content = paths[2].read_bytes()
    paths[2].write_bytes(content.replace(b"\xff\xd8\xff\xf7", bytes(4)))  # start of the JPEG-LS stream
    result = run_ingest()
    rows = {row["reason"]: row for row in result.catalog.quarantine.to_dicts()}
    assert {reason: row["files"] for reason, row in rows.items()} == {"DECODE_FAILED": 1, "MISSING_SLICE": 3}
    assert rows["DECODE_FAILED"]["path_hash"] == _path_hash(result, "bad/0003.dcm")


def test_copies_of_a_series_are_read_as_one_and_a_bad_copy_costs_nothing(inputs, run_ingest):
    inputs.dicom("good", 1)
    shutil.copytree(inputs.root / "good", inputs.root / "same")
    assert run_ingest().record.facts["series"] == 1
    shutil.copytree(inputs.root / "good", inputs.root / "cut")
    victim = inputs.root / "cut/0002.dcm"
    victim.write_bytes(victim.read_bytes()[:-50])
    result = run_ingest()
    assert result.reasons() == ["TRUNCATED"]
    assert result.catalog.quarantine["path_hash"].to_list() == [_path_hash(result, "cut/0002.dcm")]
    assert result.record.facts["series"] == 1


def test_a_copy_with_other_pixels_is_a_series_of_its_own(inputs, run_ingest):
    paths, voxels = inputs.dicom("first", 1)
    shutil.copytree(inputs.root / "first", inputs.root / "second")
    item = pydicom.dcmread(inputs.root / "second" / paths[0].name)
    item.PixelData = bytes(len(item.PixelData))
    item.save_as(inputs.root / "second" / paths[0].name)
    result = run_ingest()
    assert result.reasons() == []
    assert sorted(_stored(result, row)[0].min() for row in result.catalog.series.to_dicts()) == [-1024, voxels.min()]


def test_volumes_of_a_time_series_are_rows_with_labels_and_ids_of_their_own(inputs, run_ingest):
    first, _ = inputs.dicom("scan", 1, "MR")
    second, _ = inputs.dicom("later", 2, "MR", identity=inputs.identity(name="scan"))
    for number, path in enumerate(second):
        item = pydicom.dcmread(path)
        item.InstanceNumber = len(first) + number + 1
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = uid_from("later", str(number))
        item.save_as(path)
    series = run_ingest().catalog.series
    assert sorted(series["volume_label"]) == ["repeat 1", "repeat 2"]
    assert series["series_uid"].n_unique() == 1
    assert series["series_id"].n_unique() == 2


def test_placeholders_are_no_patient(inputs, run_ingest):
    for name in ("one", "two"):
        inputs.dicom(name, 1, identity=inputs.identity(patient=name), patient_id="ANONYMOUS")
    series = run_ingest().catalog.series
    assert series["subject_id"].n_unique() == 2
    assert set(series["subject_source"]) == {"study"}


def test_a_missing_slice_is_refused_with_the_numbers(inputs, run_ingest):
    paths, _ = inputs.dicom("gap", 1)
    paths[1].unlink()
    inputs.dicom("good", 2)
    (refusal,) = run_ingest().catalog.quarantine.to_dicts()
    assert refusal["reason"] in {"MISSING_SLICE", "NONUNIFORM_SPACING"}
    assert "8.000 mm" in refusal["found"]


def test_subjects_of_dicom_and_bids_meet_only_under_the_same_word(inputs, run_ingest):
    inputs.dicom("a", 1, identity=inputs.identity("7"))
    inputs.dicom("b", 2, identity=inputs.identity("sub-8"))
    for number, name in enumerate(["sub-7", "sub-8"]):
        inputs.nifti(f"{name}/anat/{name}_T1w.nii", np.abs(inputs.voxels(number + 3)))
    series = run_ingest().catalog.series
    assert series["subject_id"].n_unique() == 3
    shared = series.group_by("subject_id").agg(pl.col("source").sort()).filter(pl.col("source").list.len() == 2)
    assert shared["source"].to_list() == [["dicom", "nifti"]]
    assert set(series["subject_source"]) == {"patient_id", "bids"}


def test_a_series_without_patient_id_belongs_to_its_study(inputs, run_ingest):
    identity = inputs.identity()
    inputs.dicom("mr", 1, "MR", identity=identity, patient_id="", series_uid=uid_from("one"))
    inputs.dicom("ct", 2, "CT", identity=identity, patient_id="", series_uid=uid_from("two"))
    series = run_ingest().catalog.series
    assert series["subject_id"].n_unique() == 1
    assert set(series["subject_source"]) == {"study"}


@pytest.mark.parametrize(
    ("name", "patient", "subject"),
    [
        ("sub-07/anat/sub-07_T1w.nii.gz", "PAT-9", ("sub-07", "bids")),
        ("all/sub-A1_ses-2_ct.nii", None, ("sub-A1", "bids")),
        ("ct/case3_ct.nii", None, ("case3", "file")),
        ("mr/case3_T1w.nii.gz", None, ("case3", "file")),
        ("mr/case3_T1w.nii.gz", "PAT-9", ("PAT-9", "patient_id")),
        ("notsub-7/case3.nii", None, ("case3", "file")),
    ],
)
def test_the_subject_of_a_nifti_file(name, patient, subject):
    assert _nifti_subject(name, patient) == subject


def test_unusable_volumes_are_quarantined_by_reason_and_notes_ignored(inputs, run_ingest):
    inputs.dicom("good", 1)
    paths, _ = inputs.dicom("text", 2)
    for path in paths:
        item = pydicom.dcmread(path)
        item.BurnedInAnnotation = "YES"
        item.save_as(path)
    inputs.nifti("unknown.nii.gz", np.abs(inputs.voxels(3)))
    inputs.nifti("thin_T1w.nii", np.abs(inputs.voxels(4, (9, 8, 2))))
    inputs.nifti("series_bold.nii", np.zeros((5, 5, 5, 3), np.int16))
    inputs.text("no_magic.dcm", "text")
    inputs.text("1.2.840.113", "text")
    for name in ("README", "participants.tsv", "good/notes.txt"):
        inputs.text(name, "x")
    result = run_ingest()
    assert result.reasons() == [
        "BURNED_IN_TEXT", "NOT_3D", "NOT_DICOM", "NOT_DICOM", "TOO_FEW_SLICES", "UNKNOWN_MODALITY",
    ]  # fmt: skip
    assert result.record.facts["ignored"] == 3
    assert run_ingest(min_slices=2).record.facts["series"] == 2


def test_lesions_land_on_the_grid_of_their_image_though_the_mask_is_stored_in_another_order(inputs, run_ingest):
    _, voxels = inputs.dicom("dicom/mr", 1, "MR")
    truth = np.zeros(voxels.shape, np.int16)
    truth[2:5, 3:6, 1:3] = 1
    truth[8:10, 1:4, 2] = 5
    flipped = inputs.affine.copy()
    flipped[:3, 3] += flipped[:3, 0] * (truth.shape[0] - 1)
    flipped[:3, 0] *= -1
    inputs.nifti("masks/m.nii.gz", np.ascontiguousarray(truth[::-1].transpose(1, 0, 2)), flipped[:, [1, 0, 2, 3]])
    _lesion_csv(inputs, "masks/m.nii.gz,dicom/mr,1,cyst", "masks/m.nii.gz,dicom/mr,5,ring")
    result = run_ingest()
    assert result.reasons() == []
    (series,) = result.catalog.series.to_dicts()
    lesions = {row["mask_value"]: row for row in result.catalog.lesions.to_dicts()}
    assert {value: row["lesion_class"] for value, row in lesions.items()} == {1: "cyst", 5: "ring"}
    assert {row["subject_id"] for row in lesions.values()} == {series["subject_id"]}
    assert lesions[1]["volume_mm3"] == pytest.approx(18 * 9.0)
    assert lesions[5]["volume_mm3"] == pytest.approx(6 * 9.0)
    mask, affine = _stored(result, {"path": lesions[1]["mask_path"]})
    np.testing.assert_array_equal(mask, truth)
    np.testing.assert_allclose(affine, inputs.affine, atol=1e-4)


def test_a_folder_of_mr_and_ct_is_resolved_by_the_grid(inputs, run_ingest):
    inputs.dicom("study/mr", 1, "MR")
    inputs.nifti("study/other_ct.nii", inputs.voxels(2, (6, 6, 6)))
    mask = np.zeros((6, 6, 6), np.int16)
    mask[1:3, 1:3, 1:3] = 1
    inputs.nifti("m.nii", mask)
    _lesion_csv(inputs, "m.nii,study,1,cyst")
    result = run_ingest()
    (row,) = result.catalog.lesions.join(result.catalog.series, on="series_id").to_dicts()
    assert row["modality"] == "CT"


def test_lesions_that_cannot_be_trusted_are_quarantined_one_by_one(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    inputs.nifti("unknown.nii", np.abs(inputs.voxels(3)))
    mask = np.zeros((12, 10, 4), np.int16)
    mask[3:5, 3:5, 1:3] = 2
    inputs.nifti("m.nii", mask)
    inputs.nifti("small.nii", mask[:-1])
    outside = inputs.root.parent / "outside.nii"
    shutil.copy(inputs.root / "m.nii", outside)
    _lesion_csv(
        inputs,
        "m.nii,mr,2,cyst",
        "m.nii,mr,3,ring",
        "small.nii,mr,2,cyst",
        "gone.nii,mr,2,cyst",
        "m.nii,gone,2,cyst",
        "m.nii,unknown.nii,2,cyst",
        "../outside.nii,mr,2,cyst",
        f"{outside},mr,2,cyst",
    )
    result = run_ingest()
    assert result.reasons() == [
        "IMAGE_REFUSED", "MASK_GRID_MISMATCH", "MASK_VALUE_ABSENT", *["MISSING_REFERENCE"] * 4, "UNKNOWN_MODALITY",
    ]  # fmt: skip
    (lesion,) = result.catalog.lesions.to_dicts()
    assert (lesion["mask_value"], lesion["lesion_class"]) == (2, "cyst")


def test_a_mangled_lesion_table_stops_the_run_before_anything_is_read(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    inputs.text("lesions.csv", "mask,image\n1,2\n")
    with pytest.raises(InputError, match="missing: mask_path, image_path, lesion_class"):
        run_ingest()


def test_facts_of_a_sidecar_are_used(inputs, run_ingest):
    inputs.nifti("scan.nii", np.abs(inputs.voxels()))
    inputs.text("scan.json", json.dumps({"Modality": "MR", "BodyPartExamined": "Brain", "PatientPosition": "HFP"}))
    (row,) = run_ingest().catalog.series.to_dicts()
    assert (row["modality"], row["body_part"], row["patient_position"]) == ("MR", "BRAIN", "HFP")
