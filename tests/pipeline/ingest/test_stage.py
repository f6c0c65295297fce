import os
import stat

import numpy as np
import polars as pl
import pytest

from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.ingest.stage import ingest
from pipeline.ledger import Ledger
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace


def test_the_facts_say_what_was_found(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    inputs.dicom("ct", 2, "CT")
    inputs.text("broken.dcm", "x")
    inputs.text("notes.txt", "x")
    facts = run_ingest().record.facts
    assert facts == {
        "layout": "scans", "layout_reason": "8 DICOM files by content, 0 NIfTI files", "series": 2, "subjects": 1,
        "lesions": 0, "lesion_classes": {}, "quarantined": 1, "quarantine_reasons": {"NOT_DICOM": 1},
        "modalities": {"CT": 1, "MR": 1}, "subject_source": ["patient_id"], "ignored": 1,
            "look_alikes": 0,
    }  # fmt: skip


def test_an_unchanged_input_is_found_read_and_a_changed_one_is_read_again(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    first, second = run_ingest(), run_ingest()
    assert (first.record.cached, second.record.cached) == (False, True)
    inputs.dicom("ct", 2, "CT")
    third = run_ingest()
    assert not third.record.cached
    assert third.record.facts["series"] == 2
    (inputs.root / "ct/0004.dcm").unlink()
    assert run_ingest().record.key not in {first.record.key, third.record.key}


def test_equal_inputs_give_equal_catalogs_wherever_they_lie(tmp_path, inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    inputs.nifti("sub-1_T1w.nii.gz", np.abs(inputs.voxels(3)))
    inputs.text("x.dcm", "x")
    first = run_ingest()
    moved = tmp_path / "elsewhere"
    inputs.root.rename(moved)
    second = run_ingest(moved, workspace="other")
    assert first.record.content_sha256 == second.record.content_sha256


def test_another_identity_key_gives_another_catalog(tmp_path, inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    first = run_ingest()
    other = Workspace.open(tmp_path / "other", b"z" * 32)
    record = ingest(other, RunSettings(), inputs.root)
    assert record.key != first.record.key
    subjects = pl.read_parquet(record.path(other.root) / "series.parquet")["subject_id"]
    assert subjects[0] != first.catalog.series["subject_id"][0]


def test_the_crosswalk_leads_back_and_only_the_owner_can_read_it(inputs, run_ingest):
    paths, _ = inputs.dicom("mr", 1, "MR")
    inputs.text("broken.dcm", "x")
    result = run_ingest()
    (file,) = result.workspace.identity.glob("crosswalk-*.json")
    assert file.stem == f"crosswalk-{result.record.key[:16]}"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    crosswalk = read_json(file)
    (row,) = result.catalog.series.to_dicts()
    assert crosswalk["subjects"][row["subject_id"]] == "PATIENT-7"
    assert crosswalk["series"][row["series_id"]]["series_uid"] == inputs.identity(name="mr").series_uid
    named = [crosswalk["paths"][path_hash] for path_hash in crosswalk["series"][row["series_id"]]["paths"]]
    assert named == [f"mr/{path.name}" for path in paths]
    (refusal,) = result.catalog.quarantine.to_dicts()
    assert crosswalk["paths"][refusal["path_hash"]] == "broken.dcm"
    pseudonyms = Pseudonymizer(result.workspace.identity_key())
    assert row["subject_id"] == pseudonyms.subject("PATIENT-7")


def test_an_input_of_refusals_alone_names_them_and_keeps_the_rows(tmp_path, inputs, run_ingest):
    inputs.dicom("thin", 1)
    for name in ("0002.dcm", "0003.dcm", "0004.dcm"):
        (inputs.root / "thin" / name).unlink()
    inputs.nifti("Jane-Roe.nii", np.abs(inputs.voxels(3)))
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert "everything was quarantined: 1 TOO_FEW_SLICES, 1 UNKNOWN_MODALITY" in caught.value.found
    assert "scanloom quarantine list" in caught.value.change
    assert "Jane" not in str(caught.value)
    (kept,) = (tmp_path / "workspace/logs").glob("quarantine-*.parquet")
    assert kept.name in caught.value.change
    assert sorted(pl.read_parquet(kept)["reason"]) == ["TOO_FEW_SLICES", "UNKNOWN_MODALITY"]
    (row,) = Ledger(tmp_path / "workspace/ledger.sqlite").rows("ingest")
    assert row.state == "failed"


@pytest.mark.parametrize("place", ["empty", "missing"])
def test_no_input_is_refused_before_the_ledger_hears_of_it(tmp_path, run_ingest, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must be a folder with scans or images"):
        run_ingest(tmp_path / place)
    assert not (tmp_path / "workspace/ledger.sqlite").exists()


def test_a_layout_that_is_chosen_is_not_detected(inputs, run_ingest):
    inputs.image("a/1.png")
    inputs.dicom("mr", 1, "MR")
    with pytest.raises(InputError, match="one layout"):
        run_ingest()
    facts = run_ingest(layout="class_folders").record.facts
    assert (facts["layout"], facts["layout_reason"], facts["ignored"]) == ("class_folders", "chosen in the settings", 4)


def test_links_are_quarantined_and_what_they_lead_to_is_neither_read_nor_changed(tmp_path, inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    outside = tmp_path / "outside"
    (inputs.root / "mr").rename(outside)
    inputs.dicom("good", 2)
    (inputs.root / "escape").symlink_to(outside)
    (inputs.root / "0009.dcm").symlink_to(outside / "0001.dcm")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    result = run_ingest()
    assert result.reasons() == ["LINK", "LINK"]
    assert result.record.facts["modalities"] == {"CT": 1}
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_a_workspace_inside_the_input_is_no_input(inputs, run_ingest):
    inputs.dicom("mr", 1, "MR")
    workspace = Workspace.open(inputs.root / "work", bytes(range(32)))
    first = ingest(workspace, RunSettings(), inputs.root)
    assert ingest(workspace, RunSettings(), inputs.root).cached
    assert first.facts["series"] == 1


def test_progress_counts_to_the_end(tmp_path, inputs):
    inputs.dicom("mr", 1, "MR")
    calls = []
    ingest(Workspace.open(tmp_path / "w"), RunSettings(), inputs.root, progress=lambda *call: calls.append(call))
    assert ("files checked", 4, 4) in calls
    assert calls[-1] == ("files read", 4, 4)
