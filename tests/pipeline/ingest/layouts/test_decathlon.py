import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.scan_io import write_nifti

LABELS = {"0": "background", "1": "liver", "2": "cancer"}


def _write(inputs, name, voxels):
    path = inputs.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, voxels, inputs.affine, voxels.dtype)


def _labels(*values):
    mask = np.zeros((12, 10, 4), np.uint8)
    for number, value in enumerate(values):
        mask[2 + 3 * number : 4 + 3 * number, 3:6, 1:3] = value
    return mask


def _set(inputs, masks, tests=(), modality=None, **changes):
    """A set of training cases with these masks, and test cases."""
    for number, (case, mask) in enumerate(masks.items()):
        _write(inputs, f"imagesTr/{case}.nii.gz", inputs.voxels(number))
        _write(inputs, f"labelsTr/{case}.nii.gz", mask)
    for number, case in enumerate(tests):
        _write(inputs, f"imagesTs/{case}.nii.gz", inputs.voxels(100 + number))
    content = {
        "name": "Liver", "modality": modality or {"0": "CT"}, "labels": LABELS,
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in masks],
        "test": [f"./imagesTs/{case}.nii.gz" for case in tests],
    }  # fmt: skip
    inputs.text("dataset.json", json.dumps(content | changes))


def test_labels_become_lesions_of_their_classes_on_the_grid_of_their_image(inputs, run_ingest):
    masks = {"liver_0": _labels(1, 2), "liver_1": _labels(1), "liver_2": _labels()}
    _set(inputs, masks, ["liver_3"])
    result = run_ingest()
    facts = result.record.facts
    assert facts["layout"] == "decathlon"
    assert facts["layout_reason"] == "dataset.json with modality, and lists of 3 training and 1 test images"
    assert (facts["series"], facts["subjects"], facts["modalities"], facts["subject_source"]) == (
        4,
        4,
        {"CT": 4},
        ["case"],
    )
    assert facts["lesion_classes"] == {"cancer": 1, "liver": 2}
    assert (result.reasons(), facts["ignored"]) == ([], 1)
    rows = result.catalog.lesions.join(result.catalog.series, on="series_id").to_dicts()
    (cancer,) = [row for row in rows if row["lesion_class"] == "cancer"]
    scan, mask = (nib.load(result.catalog.folder / cancer[name]) for name in ("path", "mask_path"))
    np.testing.assert_array_equal(np.asarray(scan.dataobj), np.clip(inputs.voxels(0), -1024, 3071))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), masks["liver_0"])
    np.testing.assert_allclose(mask.affine, scan.affine)
    assert cancer["volume_mm3"] == pytest.approx(12 * 9.0)


@pytest.mark.parametrize(
    ("name", "modality", "sequence"),
    [("MRI", "MR", None), ("T2", "MR", "T2"), ("ct", "CT", None), ("FLAIR", "MR", "FLAIR")],
)
def test_the_modality_is_told_by_the_set(inputs, run_ingest, name, modality, sequence):
    _set(inputs, {"a": _labels(1)}, modality={"0": name})
    (row,) = run_ingest().catalog.series.to_dicts()
    assert (row["modality"], row["sequence"]) == (modality, sequence)


def test_images_of_one_patient_are_one_subject_where_a_json_beside_them_says_so(inputs, run_ingest):
    _set(inputs, {"a": _labels(1), "b": _labels(2), "c": _labels(1)})
    for case in ("a", "b"):
        inputs.text(f"imagesTr/{case}.json", json.dumps({"PatientID": "p17"}))
    result = run_ingest()
    assert result.record.facts["subjects"] == 2
    assert result.catalog.lesions["subject_id"].n_unique() == 2


def test_a_set_of_several_modalities_is_refused_for_its_images_are_4_d(inputs, run_ingest):
    _set(inputs, {"a": _labels(1)}, modality={"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"})
    with pytest.raises(InputError, match="4 modalities, which such a set stores in 4-D images"):
        run_ingest()


def test_a_4_d_image_of_a_set_of_one_modality_is_quarantined_with_its_shape(inputs, run_ingest):
    _set(inputs, {"a": _labels(1), "b": _labels(1)})
    inputs.nifti("imagesTr/b.nii.gz", np.zeros((12, 10, 4, 2), np.int16))
    result = run_ingest()
    assert result.reasons() == ["IMAGE_REFUSED", "NOT_3D"]
    assert "shape (12, 10, 4, 2)" in set(result.catalog.quarantine["found"])
    assert (result.record.facts["series"], result.record.facts["lesions"]) == (1, 1)


def test_what_does_not_fit_the_list_costs_its_case_only(inputs, run_ingest):
    masks = {"good": _labels(1), "gone": _labels(1), "nolabel": _labels(1), "odd": _labels(1, 3), "grid": _labels(2)}
    _set(inputs, masks, ["test"])
    (inputs.root / "imagesTr/gone.nii.gz").unlink()
    (inputs.root / "labelsTr/nolabel.nii.gz").unlink()
    _write(inputs, "labelsTr/grid.nii.gz", _labels(2)[1:])
    _write(inputs, "imagesTr/unlisted.nii.gz", inputs.voxels(9))
    result = run_ingest()
    assert result.reasons() == [
        "MASK_GRID_MISMATCH", "MASK_VALUE_UNKNOWN", "MISSING_REFERENCE", "MISSING_REFERENCE", "NOT_LISTED",
    ]  # fmt: skip
    assert "1 of 2 values without a class, e.g. 3" in set(result.catalog.quarantine["found"])
    assert (result.record.facts["series"], result.record.facts["lesion_classes"]) == (5, {"liver": 1})


def test_paths_that_lead_out_of_the_set_are_missing(inputs, run_ingest):
    outside = inputs.root.parent / "outside.nii.gz"
    write_nifti(outside, inputs.voxels(), inputs.affine, np.int16)
    _set(inputs, {"a": _labels(1)}, test=["../outside.nii.gz", str(outside)])
    result = run_ingest()
    assert result.reasons() == ["MISSING_REFERENCE"] * 2
    assert result.record.facts["series"] == 1


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"modality": {"0": "QZTOKEN"}}, "neither MR nor CT"),
        ({"modality": "CT"}, 'no object under "modality"'),
        ({"labels": {"0": "background"}}, "0 labels beside background"),
        ({"labels": {"0": "background", "1": "a/b", "2": "ok"}}, "2 labels beside background, 1 of them"),
        ({"labels": {"0": "background", "1": "a", "01": "b"}}, "2 labels beside background, 1 of them"),
        ({"labels": {"40000": "a"}}, "1 labels beside background, 0 of them"),
        ({"training": [{"image": "imagesTr/a.nii.gz"}]}, "training entry 1 without image and label"),
        ({"training": [{"image": "a", "label": "b"}, {"image": "./a", "label": "c"}]}, "training entry 2 without"),
        ({"test": [7]}, "test entry 1 without an image"),
        ({"test": {}}, "no lists"),
    ],
)
def test_a_description_of_another_form_is_refused_without_quoting_it(inputs, run_ingest, changes, found):
    _set(inputs, {"a": _labels(1)})
    content = json.loads((inputs.root / "dataset.json").read_text())
    inputs.text("dataset.json", json.dumps(content | changes))
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert found in caught.value.found
    assert "QZTOKEN" not in str(caught.value)


def test_a_set_beside_other_scans_is_refused_as_ambiguous(inputs, run_ingest):
    _set(inputs, {"a": _labels(1)})
    inputs.dicom("more", 5)
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert "scans: 4 DICOM files by content, 0 NIfTI files" in caught.value.found
    assert "decathlon: " in caught.value.found


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "\0"])
def test_a_choice_of_the_layout_without_a_description_is_refused(inputs, run_ingest, content):
    _write(inputs, "imagesTr/a.nii.gz", inputs.voxels())
    inputs.text("dataset.json", content)
    with pytest.raises(InputError, match=r"no JSON object in dataset.json"):
        run_ingest(layout="decathlon")


def test_the_mapping_names_the_labels_that_are_lesions_and_leaves_out_the_rest(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 2), "b": _labels(1)})
    result = run_ingest(lesion_classes={"CANC*": "tumor"})
    (lesion,) = result.catalog.lesions.to_dicts()
    assert (lesion["lesion_class"], lesion["mask_value"]) == ("tumor", 2)
    assert (result.record.facts["series"], result.reasons()) == (2, [])


def test_a_label_that_could_not_be_shown_may_be_mapped(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 2)}, labels={"0": "background", "1": "left/right", "2": "cancer"})
    with pytest.raises(InputError, match="2 labels beside background, 1 of them"):
        run_ingest()
    facts = run_ingest(lesion_classes={"left/*": "organ", "*": "tumor"}).record.facts
    assert facts["lesion_classes"] == {"organ": 1, "tumor": 1}


def test_a_mapping_that_names_no_label_is_refused(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 2)})
    with pytest.raises(InputError, match=r"2 labels, none of them named in ingest.lesion_classes"):
        run_ingest(lesion_classes={"GTV*": "tumor"})


def test_the_order_of_the_mapping_is_part_of_the_key(inputs, run_ingest):
    _set(inputs, {"a": _labels(1, 2)})
    either = run_ingest(lesion_classes={"liver": "organ", "*": "other"})
    any_first = run_ingest(lesion_classes={"*": "other", "liver": "organ"})
    assert either.record.key != any_first.record.key
    assert either.record.facts["lesion_classes"] == {"organ": 1, "other": 1}
    assert any_first.record.facts["lesion_classes"] == {"other": 2}
