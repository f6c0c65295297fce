import json

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.ingest.layouts import detect
from pipeline.ingest.source_tree import walk

SHAPE = (12, 10, 4)


def _image(inputs, name, seed=0, affine=None):
    voxels = np.abs(inputs.voxels(seed))
    inputs.nifti(name, voxels, inputs.affine if affine is None else affine)
    return voxels


def _mask(inputs, name, *values, affine=None):
    voxels = np.zeros(SHAPE, np.int16)
    for row, value in enumerate(values or (1,)):
        voxels[2 + row, 3:6, 1:3] = value
    inputs.nifti(name, voxels, inputs.affine if affine is None else affine)
    return voxels


def _dataset(inputs):
    inputs.text("dataset_description.json", json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    inputs.text("README", "notes")
    _image(inputs, "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", 1)
    _image(inputs, "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz", 2)
    _image(inputs, "sub-02/anat/sub-02_acq-fast_run-1_T2w.nii.gz", 3)
    _image(inputs, "sub-02/ct/sub-02_ct.nii.gz", 4)


def test_subjects_sessions_modalities_and_sequences_come_from_the_names(inputs, run_ingest):
    _dataset(inputs)
    result = run_ingest()
    facts = result.record.facts
    assert facts["layout"] == "bids"
    assert facts["layout_reason"] == "dataset_description.json, 4 images in anat/ or ct/ of 2 sub- folders, 2 sessions"
    assert (facts["subjects"], facts["subject_source"], facts["ignored"]) == (2, ["bids"], 2)
    rows = {row["sequence"] or row["modality"]: row for row in result.catalog.series.to_dicts()}
    assert set(rows) == {"T1", "FLAIR", "T2", "CT"}
    assert rows["T1"]["subject_id"] == rows["FLAIR"]["subject_id"] != rows["T2"]["subject_id"]
    assert rows["CT"]["unit"] == "HU"


def test_sessions_are_studies_of_their_own_under_a_pseudonym(inputs, run_ingest):
    _dataset(inputs)
    _image(inputs, "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", 7)
    _image(inputs, "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz", 8)
    rows = run_ingest().catalog.series
    studies = {(row["subject_id"], row["sequence"]): row["study_uid"] for row in rows.to_dicts()}
    told = [uid for uid in studies.values() if uid is not None]
    assert len(told) == 4
    assert len(set(told)) == 3  # sub-01 ses-a (twice), sub-01 ses-b, sub-02 ses-a
    assert all(uid.startswith("2.25.") for uid in told)


def test_a_subject_is_the_same_as_in_a_mixture_of_scans(inputs, run_ingest):
    _image(inputs, "sub-07/anat/sub-07_T1w.nii.gz")
    first = run_ingest(workspace="a", layout="bids").catalog.series.to_dicts()
    second = run_ingest(workspace="b", layout="scans").catalog.series.to_dicts()
    same = ("subject_id", "series_id", "content_sha256", "sequence", "modality")
    assert [[row[key] for key in same] for row in first] == [[row[key] for key in same] for row in second]


def test_echoes_and_parts_are_labeled_and_made_up_labels_stay_inside(inputs, run_ingest):
    for number, name in enumerate(["echo-01_part-mag", "echo-02_part-phase", "acq-JaneRoe_inv-2"]):
        _image(inputs, f"sub-01/anat/sub-01_{name}_T2starw.nii.gz", number)
    rows = run_ingest().catalog.series
    assert set(rows["volume_label"]) == {"echo 1; part M", "echo 2; part P", "inversion 2"}
    assert set(rows["sequence"]) == {"T2*"}


def test_other_data_types_are_set_aside_unread_with_a_reason(inputs, run_ingest):
    _dataset(inputs)
    for name in ("func/sub-02_task-rest_bold", "dwi/sub-02_dwi", "fmap/sub-02_phasediff", "perf/sub-02_asl"):
        inputs.text(f"sub-02/{name}.nii.gz", "no image at all")
    inputs.text("sub-02/func/sub-02_task-rest_events.tsv", "onset\n")
    inputs.text("sub-02/dwi/sub-02_dwi.bval", "0")
    result = run_ingest()
    assert result.reasons() == ["NOT_ANATOMICAL"] * 4
    assert set(result.catalog.quarantine["found"]) == {
        f"an image of data type {name}" for name in ("func", "dwi", "fmap", "perf")
    }
    assert result.record.facts["ignored"] == 4


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/anat/T1.nii.gz",
        "sub-01/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-a-b_T1w.nii.gz",
    ],
)
def test_images_that_contradict_their_place_are_refused(inputs, run_ingest, name):
    _dataset(inputs)
    _image(inputs, name, 9)
    result = run_ingest()
    assert result.reasons() == ["NOT_BIDS"]
    assert result.record.facts["series"] == 4


def test_an_unknown_suffix_is_read_if_the_json_beside_it_tells_the_modality(inputs, run_ingest):
    _image(inputs, "sub-01/anat/sub-01_T1w.nii.gz", 1)
    _image(inputs, "sub-01/anat/sub-01_odd.nii.gz", 2)
    _image(inputs, "sub-01/anat/sub-01_told.nii.gz", 3)
    inputs.text("sub-01/anat/sub-01_told.json", json.dumps({"Modality": "MR", "PatientID": "Jane"}))
    result = run_ingest()
    assert result.reasons() == ["UNKNOWN_MODALITY"]
    assert (result.record.facts["series"], result.record.facts["subject_source"]) == (2, ["bids"])


def test_one_name_in_two_formats_and_modalities_that_contradict_are_refused(inputs, run_ingest):
    _dataset(inputs)
    _image(inputs, "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii", 5)
    inputs.text("sub-02/ct/sub-02_ct.json", json.dumps({"Modality": "MR"}))
    assert run_ingest().reasons() == ["AMBIGUOUS_CASE", "AMBIGUOUS_CASE", "MODALITY_CONFLICT"]


def test_participants_without_an_image_are_counted_and_not_named(inputs, run_ingest):
    _dataset(inputs)
    inputs.text("participants.tsv", "participant_id\tage\nsub-01\t34\nsub-02\t50\nsub-03\t6\nJaneRoe\t7\n")
    result = run_ingest()
    (row,) = result.catalog.quarantine.to_dicts()
    assert row["reason"] == "MISSING_REFERENCE"
    assert row["found"] == "2 of 4 subjects in participants.tsv have no image in anat/ or ct/"
    inputs.text("participants.tsv", "participant_id\nsub-01\nsub-02\n")
    assert run_ingest().reasons() == []
    (inputs.root / "participants.tsv").write_bytes(b"\xff\xfe\0")
    assert run_ingest().reasons() == ["BAD_TABLE"]


def test_sourcedata_and_code_are_not_looked_at_not_even_for_dicom(inputs, run_ingest):
    _dataset(inputs)
    inputs.dicom("sourcedata/sub-01/dicom")
    _image(inputs, "code/example_T1w.nii.gz", 8)
    result = run_ingest()
    assert (result.record.facts["layout"], result.record.facts["series"]) == ("bids", 4)
    assert result.reasons() == []
    assert result.record.facts["ignored"] == 2 + 4 + 1


def test_a_tree_with_dicom_or_a_lesion_table_is_left_to_scans(inputs):
    _dataset(inputs)
    assert detect(walk(inputs.root))[0] == "bids"
    inputs.text("lesions.csv", "mask_path,image_path,mask_value,lesion_class\n")
    assert detect(walk(inputs.root))[0] == "scans"
    (inputs.root / "lesions.csv").unlink()
    inputs.dicom("more/series")
    assert detect(walk(inputs.root))[0] == "scans"


def test_images_beside_the_tree_make_it_ambiguous(inputs):
    _dataset(inputs)
    _image(inputs, "extra/scan_T1w.nii.gz")
    with pytest.raises(InputError) as caught:
        detect(walk(inputs.root))
    assert "bids: " in caught.value.found
    assert "scans: 0 DICOM files by content, 1 NIfTI files" in caught.value.found


def _lesions(result):
    return {
        (row["lesion_class"], row["mask_value"], round(row["volume_mm3"], 3), row["series_id"])
        for row in result.catalog.lesions.to_dicts()
    }


def _series(result, sequence):
    (row,) = [row for row in result.catalog.series.to_dicts() if row["sequence"] == sequence]
    return row["series_id"]


VOXEL_MM3 = 1.5 * 1.5 * 4.0


def test_a_mask_in_derivatives_becomes_a_lesion_of_the_image_of_its_entities(inputs, run_ingest):
    _dataset(inputs)
    drawn = _mask(inputs, "derivatives/manual/sub-01/ses-b/anat/sub-01_ses-b_label-stroke_mask.nii.gz")
    result = run_ingest()
    assert result.reasons() == []
    assert _lesions(result) == {("stroke", 1, 6 * VOXEL_MM3, _series(result, "FLAIR"))}
    voxels, affine = result.catalog.mask(result.catalog.lesions.to_dicts()[0])
    np.testing.assert_array_equal(voxels, drawn)
    np.testing.assert_allclose(affine, inputs.affine, atol=1e-5)


def test_a_dseg_gets_its_classes_from_the_nearest_lookup_table(inputs, run_ingest):
    _dataset(inputs)
    stem = "derivatives/seg/sub-02/anat/sub-02_acq-fast_run-1_dseg"
    _mask(inputs, f"{stem}.nii.gz", 1, 3)
    inputs.text("derivatives/dseg.tsv", "index\tname\n1\tfar\n3\taway\n")
    table = "index\tname\tabbreviation\n0\tbackground\tB\n1\tedema\tE\n3\tcore\tC\n9\tq\tq\n"
    inputs.text("derivatives/seg/dseg.tsv", table)
    inputs.text("derivatives/seg/desc-other_dseg.tsv", "index\tname\n1\twrong\n3\twrong too\n")
    result = run_ingest()
    assert {(name, value) for name, value, *_ in _lesions(result)} == {("edema", 1), ("core", 3)}
    assert {series for *_, series in _lesions(result)} == {_series(result, "T2")}
    inputs.text(f"{stem}.tsv", "index\tname\n1\tbeside it\n")
    assert run_ingest().reasons() == ["MASK_VALUE_UNKNOWN"]


def test_the_mapping_of_the_settings_names_and_leaves_out(inputs, run_ingest):
    _dataset(inputs)
    _mask(inputs, "derivatives/seg/sub-02/anat/sub-02_acq-fast_run-1_dseg.nii.gz", 1, 3)
    inputs.text("derivatives/seg/dseg.tsv", "index\tname\n1\tGTV right\n3\tLeft-Thalamus\n")
    _mask(inputs, "derivatives/seg/sub-02/ct/sub-02_desc-gtv_mask.nii.gz")
    _mask(inputs, "derivatives/seg/sub-02/ct/sub-02_label-liver_mask.nii.gz")
    result = run_ingest(lesion_classes={"gtv*": "tumor"})
    assert sorted((name, value) for name, value, *_ in _lesions(result)) == [("tumor", 1)] * 2
    assert result.reasons() == []


def test_the_mask_of_a_brain_is_no_lesion_unless_it_is_asked_for(inputs, run_ingest):
    _dataset(inputs)
    _mask(inputs, "derivatives/prep/sub-02/ct/sub-02_desc-brain_mask.nii.gz")
    assert run_ingest().record.facts["lesions"] == 0
    assert run_ingest(lesion_classes={"brain": "brain"}).record.facts["lesions"] == 1


def test_space_or_mod_says_which_of_several_images_on_one_grid(inputs, run_ingest):
    for number, suffix in enumerate(["T1w", "T2w"]):
        _image(inputs, f"sub-01/anat/sub-01_{suffix}.nii.gz", number)
    _mask(inputs, "derivatives/sub-01/anat/sub-01_label-ms_mask.nii.gz")
    result = run_ingest()
    assert result.reasons() == ["AMBIGUOUS_REFERENCE"]
    assert "space-T1w" in result.catalog.quarantine["advice"][0]
    (inputs.root / "derivatives/sub-01/anat/sub-01_label-ms_mask.nii.gz").unlink()
    _mask(inputs, "derivatives/sub-01/anat/sub-01_space-T2w_label-ms_mask.nii.gz")
    _mask(inputs, "derivatives/sub-01/anat/sub-01_mod-T1w_label-edge_mask.nii.gz", 2)
    result = run_ingest()
    assert _lesions(result) == {
        ("ms", 1, 6 * VOXEL_MM3, _series(result, "T2")),
        ("edge", 2, 3 * VOXEL_MM3 * 2, _series(result, "T1")),
    }


def test_runs_and_grids_tell_images_apart(inputs, run_ingest):
    shifted = inputs.affine.copy()
    shifted[0, 3] += 5
    _image(inputs, "sub-01/anat/sub-01_run-1_T1w.nii.gz", 1)
    _image(inputs, "sub-01/anat/sub-01_run-2_T2w.nii.gz", 2)
    _image(inputs, "sub-01/anat/sub-01_run-3_FLAIR.nii.gz", 3, shifted)
    _mask(inputs, "sub-01/anat/sub-01_run-2_label-a_mask.nii.gz")
    _mask(inputs, "sub-01/anat/sub-01_label-b_mask.nii.gz", affine=shifted)
    _mask(inputs, "sub-01/anat/sub-01_run-1_label-c_mask.nii.gz", affine=shifted)
    _mask(inputs, "sub-01/anat/sub-01_run-9_label-d_mask.nii.gz")
    result = run_ingest()
    assert {(name, series) for name, *_, series in _lesions(result)} == {
        ("a", _series(result, "T2")),
        ("b", _series(result, "FLAIR")),
    }
    assert result.reasons() == ["MASK_GRID_MISMATCH", "MISSING_REFERENCE"]


@pytest.mark.parametrize(
    ("name", "values", "table", "reason"),
    [
        ("sub-02_mask", (1,), None, "UNMAPPED_STRUCTURE"),
        ("sub-02_dseg", (1,), None, "UNMAPPED_STRUCTURE"),
        ("sub-02_dseg", (1,), "index\tname\n1\t<script>\n", "UNMAPPED_STRUCTURE"),
        ("sub-02_dseg", (1,), "index\tname\n1\ta\n1\tb\n", "BAD_TABLE"),
        ("sub-02_dseg", (1,), "number\tname\n1\ta\n", "BAD_TABLE"),
        ("sub-02_dseg", (1, 2), "index\tname\n1\ta\n", "MASK_VALUE_UNKNOWN"),
        ("sub-02_label-a_mask", (1, 2), None, "MASK_VALUE_UNKNOWN"),
        ("sub-03_label-a_mask", (1,), None, "MISSING_REFERENCE"),
        ("sub-02_ses-z_label-a_mask", (1,), None, "MISSING_REFERENCE"),
    ],
)
def test_masks_that_cannot_be_trusted_are_refused_with_their_reason(inputs, run_ingest, name, values, table, reason):
    _image(inputs, "sub-02/ct/sub-02_ct.nii.gz", 4)
    subject, *rest = name.split("_")
    session = "ses-z/" if "ses-z" in rest else ""
    _mask(inputs, f"derivatives/x/{subject}/{session}ct/{name}.nii.gz", *values)
    if table is not None:
        inputs.text(f"derivatives/x/{subject}/ct/{name}.tsv", table)
    result = run_ingest()
    assert result.reasons() == [reason]
    assert result.record.facts["lesions"] == 0


def test_other_derived_images_are_set_aside_in_one_row(inputs, run_ingest):
    _dataset(inputs)
    for name in ("sub-01_desc-preproc_T1w", "sub-02_space-MNI_T1w", "mean"):
        _image(inputs, f"derivatives/prep/sub-01/anat/{name}.nii.gz", 5)
    result = run_ingest()
    (row,) = result.catalog.quarantine.to_dicts()
    assert (row["reason"], row["files"]) == ("DERIVED", 3)
    assert result.record.facts["series"] == 4


def test_what_bidsignore_names_is_not_read_and_a_change_of_it_is_noticed(inputs, run_ingest):
    _dataset(inputs)
    inputs.text("sub-02/anat/sub-02_bad_T1w.nii.gz", "no image at all")
    assert run_ingest().reasons() == ["NOT_BIDS"]
    inputs.text(".bidsignore", "*_bad_*\nsub-01/ses-b/\n")
    result = run_ingest()
    assert result.reasons() == []
    assert (result.record.facts["series"], result.record.facts["ignored"]) == (3, 2 + 2 + 1)
    inputs.text(".bidsignore", "*_bad_*\n")
    assert run_ingest().record.facts["series"] == 4


def test_no_label_of_a_name_reaches_the_catalog(inputs, run_ingest):
    _image(inputs, "sub-JANE1/ses-ROE2/anat/sub-JANE1_ses-ROE2_acq-SECRET3_T1w.nii.gz")
    inputs.text("participants.tsv", "participant_id\tname\nsub-JANE1\tSECRET4\nsub-SECRET5\tx\n")
    result = run_ingest()
    for table in (result.catalog.series, result.catalog.quarantine):
        text = table.write_json()
        assert not any(token in text for token in ("JANE1", "ROE2", "SECRET"))
