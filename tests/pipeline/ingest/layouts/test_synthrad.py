import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from pipeline.errors import InputError
from pipeline.prepare.pairing import same_frame
from pipeline.scan_io import write_nifti


def _write(inputs, name, seed, affine=None, shape=(12, 10, 4)):
    path = inputs.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = inputs.voxels(seed, shape)
    voxels = voxels if "ct" in path.name else np.abs(voxels)
    write_nifti(path, voxels, inputs.affine if affine is None else affine, np.int16)
    return voxels


def _subject(inputs, folder, seed):
    _write(inputs, f"{folder}/mask.nii.gz", 0)
    return {
        modality: _write(inputs, f"{folder}/{modality.lower()}.nii.gz", seed + ord(modality[0]))
        for modality in ("MR", "CT")
    }


def test_mr_and_ct_of_a_folder_are_paired_by_their_frame_of_reference_and_by_no_other(inputs, run_ingest):
    truth = {name: _subject(inputs, f"brain/{name}", number) for number, name in enumerate(["1BA001", "1BA002"])}
    result = run_ingest()
    facts = result.record.facts
    assert (facts["layout"], facts["layout_reason"]) == ("synthrad", "2 folders with mr and ct, 0 with one of them")
    assert (facts["subjects"], facts["modalities"], facts["ignored"]) == (2, {"CT": 2, "MR": 2}, 2)
    assert facts["subject_source"] == ["case"]
    rows = result.catalog.series.to_dicts()
    partners = [
        (mr, ct)
        for mr, ct in itertools.product(rows, rows)
        if (mr["modality"], ct["modality"]) == ("MR", "CT") and same_frame(mr, ct)
    ]
    paired = {
        tuple(
            np.asarray(nib.load(result.catalog.folder / row["path"]).dataobj).astype(np.int16).tobytes() for row in pair
        )
        for pair in partners
    }
    assert paired == {(scans["MR"].tobytes(), scans["CT"].tobytes()) for scans in truth.values()}
    frames = {row["frame_of_reference_uid"] for row in rows}
    assert len(frames) == 2
    assert all(frame.startswith("2.25.") for frame in frames)


def test_metaimage_files_give_what_nifti_files_give(inputs, run_ingest):
    _subject(inputs, "1THA001", 1)
    from_nifti = run_ingest(workspace="nifti").catalog.series
    for path in (inputs.root / "1THA001").iterdir():
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path).replace(".nii.gz", ".mha"), path.name[0] == "c")
        path.unlink()
    result = run_ingest(workspace="metaimage")
    assert result.reasons() == []
    assert result.record.facts["layout_reason"] == "1 folders with mr and ct, 0 with one of them"
    series = result.catalog.series
    assert set(series["source"]) == {"metaimage"}
    assert series["frame_of_reference_uid"].to_list() == from_nifti["frame_of_reference_uid"].to_list()
    for first, second in zip(from_nifti.sort("modality").to_dicts(), series.sort("modality").to_dicts(), strict=True):
        np.testing.assert_allclose(first["affine"], second["affine"], atol=1e-5)
        assert first["subject_id"] == second["subject_id"]
        assert first["shape"] == second["shape"]


def test_frames_are_equal_in_every_ingest_under_one_key(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    first = run_ingest().catalog.series["frame_of_reference_uid"].to_list()
    _subject(inputs, "1BA002", 2)
    assert set(first) < set(run_ingest().catalog.series["frame_of_reference_uid"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"shape": (11, 10, 4)}, "MR of (12, 10, 4) and CT of (11, 10, 4) voxels"),
        ({"shift": 2.5}, "up to 2.500 mm apart"),
    ],
)
def test_a_pair_on_two_grids_is_refused_with_the_numbers(inputs, run_ingest, change, found):
    _subject(inputs, "good", 1)
    _subject(inputs, "bad", 2)
    affine = inputs.affine.copy()
    affine[0, 3] += change.get("shift", 0)
    _write(inputs, "bad/ct.nii.gz", 3, affine, change.get("shape", (12, 10, 4)))
    result = run_ingest()
    assert result.reasons() == ["PAIR_GRID_MISMATCH", "PAIR_GRID_MISMATCH"]
    assert found in result.catalog.quarantine["found"][0]
    assert result.record.facts["subjects"] == 1


def test_a_lone_mr_is_kept_in_no_frame_and_a_broken_ct_costs_itself_only(inputs, run_ingest):
    _subject(inputs, "both", 1)
    _subject(inputs, "test", 2)
    (inputs.root / "test/ct.nii.gz").unlink()
    _subject(inputs, "cut", 3)
    cut = inputs.root / "cut/ct.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-50])
    result = run_ingest()
    assert result.reasons() == ["TRUNCATED"]
    assert result.record.facts["layout_reason"] == "2 folders with mr and ct, 1 with one of them"
    alone = [row for row in result.catalog.series.to_dicts() if row["frame_of_reference_uid"] is None]
    assert [row["modality"] for row in alone] == ["MR", "MR"]


def test_what_is_neither_mr_nor_ct_is_set_aside_by_reason_and_previews_and_tables_ignored(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    _write(inputs, "1BB001/cbct.nii.gz", 2)
    _write(inputs, "1BA001/extra.nii.gz", 3)
    inputs.text("1HN001/mr.mha", "ObjectType = Image")
    inputs.image("overview/1BA001_train.png")
    inputs.text("overview/1_mr_train.csv", "x")
    result = run_ingest(layout="synthrad")
    assert result.reasons() == ["CONE_BEAM_CT", "NO_CASE", "UNREADABLE"]
    assert result.record.facts["ignored"] == 3


def test_previews_do_not_make_a_folder_of_scans_a_class_folder(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    inputs.image("overview/1BA001_train.png")
    assert run_ingest().record.facts["layout"] == "synthrad"


def test_a_tree_that_also_holds_other_scans_is_refused_as_ambiguous(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    inputs.nifti("more/p7_T1w.nii.gz", np.abs(inputs.voxels()))
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert "scans: 0 DICOM files by content, 1 NIfTI files" in caught.value.found
    assert "synthrad: 1 folders with mr and ct" in caught.value.found


def test_a_lesion_table_keeps_masks_of_the_same_names_with_scans(inputs, run_ingest):
    _write(inputs, "p17/ct.nii.gz", 1)
    mask = np.zeros((12, 10, 4), np.int16)
    mask[3:5, 3:5, 1:3] = 1
    inputs.nifti("p17/mask.nii.gz", mask)
    inputs.text("lesions.csv", "mask_path,image_path,mask_value,lesion_class\np17/mask.nii.gz,p17/ct.nii.gz,1,cyst\n")
    result = run_ingest()
    assert (result.record.facts["layout"], result.record.facts["lesions"]) == ("scans", 1)


def test_a_patient_id_beside_one_file_names_the_subject_of_its_folder(inputs, run_ingest):
    for number, visit in enumerate(["visit1", "visit2"]):
        _subject(inputs, visit, number)
        inputs.text(f"{visit}/mr.json", json.dumps({"PatientID": "p17"}))
    facts = run_ingest().record.facts
    assert (facts["subjects"], facts["subject_source"]) == (1, ["patient_id"])


def test_a_file_whose_json_contradicts_its_name_is_refused(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    inputs.text("1BA001/mr.json", json.dumps({"Modality": "CT"}))
    result = run_ingest()
    assert result.reasons() == ["MODALITY_CONFLICT"]
    assert result.record.facts["modalities"] == {"CT": 1}


def test_the_same_scan_in_two_endings_is_refused_for_neither_is_known_to_be_right(inputs, run_ingest):
    _subject(inputs, "1BA001", 1)
    _subject(inputs, "1BA002", 2)
    _write(inputs, "1BA002/mr.nii", 5)
    assert run_ingest().reasons() == ["AMBIGUOUS_CASE"] * 3
