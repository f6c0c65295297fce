import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.prepare.pairing import same_frame
from pipeline.scan_io import write_nifti

LABELS = {"background": 0, "edema": 1, "enhancing tumor": 2}


def _write(inputs, name, voxels, affine=None):
    path = inputs.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, voxels, inputs.affine if affine is None else affine, voxels.dtype)


def _labels(*values):
    mask = np.zeros((12, 10, 4), np.uint8)
    for number, value in enumerate(values):
        mask[2 + 3 * number : 4 + 3 * number, 3:6, 1:3] = value
    return mask


def _set(inputs, masks, tests=(), channels=("T1w",), **changes):
    """A set of training cases with these masks, and test cases; what lies in each image."""
    stored = {}
    for folder, cases in (("imagesTr", masks), ("imagesTs", tests)):
        for case in cases:
            for channel, name in enumerate(channels):
                voxels = inputs.voxels(len(stored))
                stored[case, channel] = voxels if name == "CT" else np.abs(voxels)
                _write(inputs, f"{folder}/{case}_{channel:04}.nii.gz", stored[case, channel])
    for case, mask in masks.items():
        _write(inputs, f"labelsTr/{case}.nii.gz", mask)
    content = {
        "channel_names": {str(channel): name for channel, name in enumerate(channels)}, "labels": LABELS,
        "numTraining": len(masks), "file_ending": ".nii.gz",
    }  # fmt: skip
    inputs.text("dataset.json", json.dumps(content | changes))
    return stored


def test_labels_become_lesions_of_their_classes_on_the_grid_of_their_image(inputs, run_ingest):
    masks = {"case_1": _labels(1, 2), "case_2": _labels(2), "case_3": _labels()}
    stored = _set(inputs, masks, ["case_4"])
    result = run_ingest()
    facts = result.record.facts
    assert facts["layout"] == "nnunet"
    assert facts["layout_reason"] == "dataset.json with channel_names and file_ending, 4 images of 4 cases"
    assert (facts["series"], facts["subjects"], facts["modalities"], facts["ignored"]) == (4, 4, {"MR": 4}, 1)
    assert (facts["lesion_classes"], result.reasons()) == ({"edema": 1, "enhancing tumor": 2}, [])
    rows = result.catalog.lesions.join(result.catalog.series, on="series_id").to_dicts()
    (edema,) = [row for row in rows if row["lesion_class"] == "edema"]
    scan, mask = (nib.load(result.catalog.folder / edema[name]) for name in ("path", "mask_path"))
    np.testing.assert_array_equal(np.asarray(scan.dataobj), stored["case_1", 0])
    np.testing.assert_array_equal(np.asarray(mask.dataobj), masks["case_1"])
    assert edema["volume_mm3"] == pytest.approx(12 * 9.0)


def test_every_channel_is_a_series_and_the_first_of_each_modality_carries_the_lesions(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 2), "b": _labels(1)}, channels=("T2", "FLAIR", "CT"))
    result = run_ingest()
    assert result.record.facts["modalities"] == {"CT": 2, "MR": 4}
    assert result.record.facts["subjects"] == 2
    rows = result.catalog.lesions.join(result.catalog.series, on="series_id").to_dicts()
    assert sorted((row["modality"], row["sequence"] or "", row["lesion_class"]) for row in rows) == [
        ("CT", "", "edema"), ("CT", "", "edema"), ("CT", "", "enhancing tumor"),
        ("MR", "T2", "edema"), ("MR", "T2", "edema"), ("MR", "T2", "enhancing tumor"),
    ]  # fmt: skip


def test_mr_and_ct_channels_of_a_case_are_registered(inputs, run_ingest):
    _set(inputs, {"a": _labels(1), "b": _labels(1)}, channels=("MRI", "CT"))
    rows = run_ingest().catalog.series.to_dicts()
    for mr in (row for row in rows if row["modality"] == "MR"):
        partners = [row for row in rows if row["modality"] == "CT" and same_frame(mr, row)]
        assert [row["subject_id"] for row in partners] == [mr["subject_id"]]
    assert len({row["frame_of_reference_uid"] for row in rows}) == 2


def test_a_patient_id_beside_one_channel_names_the_subject_of_its_cases(inputs, run_ingest):
    _set(inputs, {"a": _labels(1), "b": _labels(2)}, channels=("T1", "T2"))
    for case in ("a", "b"):
        inputs.text(f"imagesTr/{case}_0001.json", json.dumps({"PatientID": "p17"}))
    facts = run_ingest().record.facts
    assert (facts["subjects"], facts["subject_source"], facts["lesions"]) == (1, ["patient_id"], 2)


def test_channels_on_two_grids_cost_their_case_and_its_labels(inputs, run_ingest):
    _set(inputs, {"good": _labels(1), "bad": _labels(1)}, channels=("T1", "T2"))
    _write(inputs, "imagesTr/bad_0001.nii.gz", np.abs(inputs.voxels(3, (11, 10, 4))))
    result = run_ingest()
    assert result.reasons() == ["CHANNEL_GRID_MISMATCH", "CHANNEL_GRID_MISMATCH", "IMAGE_REFUSED"]
    assert "2 channels of shapes (11, 10, 4), (12, 10, 4)" in set(result.catalog.quarantine["found"])
    assert (result.record.facts["series"], result.record.facts["lesions"]) == (2, 1)


def test_a_channel_that_is_neither_mr_nor_ct_is_set_aside_and_the_others_kept(inputs, run_ingest):
    _set(inputs, {"a": _labels(1)}, channels=("PET", "CT"))
    result = run_ingest()
    assert result.reasons() == ["UNKNOWN_MODALITY"]
    assert (result.record.facts["modalities"], result.record.facts["lesions"]) == ({"CT": 1}, 1)


def test_what_does_not_fit_costs_its_case_only(inputs, run_ingest):
    _set(
        inputs, {"good": _labels(1), "nolabel": _labels(1), "odd": _labels(1, 3), "cut": _labels(2), "gone": _labels(2)}
    )
    (inputs.root / "labelsTr/nolabel.nii.gz").unlink()
    (inputs.root / "imagesTr/gone_0000.nii.gz").unlink()
    cut = inputs.root / "imagesTr/cut_0000.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-50])
    for stray in ("good_0001", "nochannel", "sub/good_0000"):
        _write(inputs, f"imagesTr/{stray}.nii.gz", inputs.voxels(9))
    result = run_ingest()
    assert result.reasons() == [
        "IMAGE_REFUSED", "MASK_VALUE_UNKNOWN", "MISSING_REFERENCE", "MISSING_REFERENCE",
        "NOT_LISTED", "NOT_LISTED", "NOT_LISTED", "TRUNCATED",
    ]  # fmt: skip
    assert (result.record.facts["series"], result.record.facts["lesion_classes"]) == (3, {"edema": 1})
    assert result.record.facts["ignored"] == 1


def test_voxels_of_the_ignore_label_are_no_lesion_and_no_fault(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 3), "b": _labels(3)}, labels=LABELS | {"ignore": 3})
    result = run_ingest()
    assert (result.reasons(), result.record.facts["lesion_classes"]) == ([], {"edema": 1})


def test_labels_of_test_images_are_read_where_there_are_any(inputs, run_ingest):
    _set(inputs, {"a": _labels(1)}, ["b", "c"])
    _write(inputs, "labelsTs/b.nii.gz", _labels(2))
    result = run_ingest()
    assert (result.reasons(), result.record.facts["lesions"]) == ([], 2)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"labels": {"background": 0, "whole tumor": [1, 2], "core": 2}}, "2 labels beside background, 1 of them"),
        ({"labels": {"background": 0, "a": True}}, "1 labels beside background, 0 of them"),
        ({"labels": []}, 'no object under "labels"'),
        ({"channel_names": {"QZTOKEN": "CT"}}, "channel_names that are not numbered"),
        ({"channel_names": {"9" * 5000: "CT"}}, "channel_names that are not numbered"),
        ({"channel_names": {}}, "channel_names that are not numbered"),
        ({"file_ending": ".QZTOKEN"}, "another file_ending"),
        ({"file_ending": []}, "another file_ending"),
        ({"dataset": {"a": {"images": []}}}, 'under "dataset"'),
    ],
)
def test_a_description_of_another_form_is_refused_without_quoting_it(inputs, run_ingest, changes, found):
    _set(inputs, {"a": _labels(1)}, **changes)
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert found in caught.value.found
    assert "QZTOKEN" not in str(caught.value)


def test_a_set_of_png_is_not_taken_for_class_folders(inputs, run_ingest):
    inputs.image("imagesTr/a_0000.png")
    inputs.image("labelsTr/a.png")
    inputs.text("dataset.json", json.dumps({"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".png"}))
    with pytest.raises(InputError, match="must be NIfTI files"):
        run_ingest()


def test_a_description_in_both_forms_is_refused_as_ambiguous(inputs, run_ingest):
    _set(inputs, {"a": _labels(1)}, training=[], modality={"0": "CT"})
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert {"decathlon", "nnunet"} <= {part.split(":")[0] for part in caught.value.found.split("; ")}


def test_the_mapping_names_the_labels_that_are_lesions_and_leaves_out_the_rest(inputs, run_ingest):
    labels = {"background": 0, "edema": 1, "enhancing tumor": 2, "ignore": 3}
    _set(inputs, {"a": _labels(1, 2, 3), "b": _labels(1)}, labels=labels)
    result = run_ingest(lesion_classes={"*tumor": "tumor"})
    (lesion,) = result.catalog.lesions.to_dicts()
    assert (lesion["lesion_class"], lesion["mask_value"]) == ("tumor", 2)
    assert (result.record.facts["series"], result.reasons()) == (2, [])
