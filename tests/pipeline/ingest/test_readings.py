"""What is known from an earlier ingest is not parsed again, and makes the same catalog."""

import hashlib
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.ingest import readings
from pipeline.ingest.identity_removal import NO_TRACE, strip_databases
from pipeline.ingest.layouts import dicom_series, nifti_cases
from pipeline.ingest.retries import last_input, retry

T1 = "sub-01/anat/sub-01_T1w.nii"


@pytest.fixture
def parsed(monkeypatch):
    """Tasks that reached a parser, by parser."""
    counts = Counter()

    def counting(module, name):
        real = getattr(module, name)

        def outcomes(parse, tasks, limits):
            counts[parse.__name__] += len(tasks)
            return real(parse, tasks, limits)

        monkeypatch.setattr(module, name, outcomes)

    counting(dicom_series, "parse_each")
    counting(dicom_series, "parse_all")
    counting(nifti_cases, "parse_all")
    return counts


@pytest.fixture
def filled(inputs):
    inputs.dicom("ct", seed=1)
    inputs.dicom("mr", seed=2, modality="MR")
    inputs.nifti("p3_T1w.nii", np.abs(inputs.voxels(3)))
    return inputs


def folder(result):
    return result.record.path(result.workspace.root)


def tree_hash(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in {"runtime.json"})
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def again(output):
    """The catalog of a second ingest that has only the readings, not the record, to go by."""
    before = tree_hash(output)
    kept = output.with_name("0" * 16)
    output.rename(kept)
    return before, kept


def test_an_ingest_of_known_files_parses_nothing_and_makes_the_same_catalog(filled, run_ingest, parsed):
    first = run_ingest()
    assert parsed == {"read_headers": 8, "read_planned_volume": 2, "read_image_file": 1}
    before, _ = again(folder(first))
    parsed.clear()
    second = run_ingest()
    assert sum(parsed.values()) == 0
    assert tree_hash(folder(second)) == before


def test_only_what_changed_is_parsed(filled, run_ingest, parsed):
    run_ingest()
    parsed.clear()
    filled.dicom("ct", seed=9)  # four slices of one series anew
    filled.nifti("p4_T1w.nii", np.abs(filled.voxels(4)))
    result = run_ingest()
    assert parsed == {"read_headers": 4, "read_planned_volume": 1, "read_image_file": 1}
    assert result.catalog.series.height == 4


def test_a_removed_series_leaves_the_catalog(filled, run_ingest, parsed):
    run_ingest()
    shutil.rmtree(filled.root / "mr")
    parsed.clear()
    assert run_ingest().catalog.series.height == 2
    assert sum(parsed.values()) == 0


def test_a_known_volume_that_was_damaged_is_parsed_again(filled, run_ingest, parsed):
    first = run_ingest()
    before, kept = again(folder(first))
    volume = sorted((kept / "volumes").iterdir())[0]
    content = bytearray(volume.read_bytes())
    content[-1] ^= 1
    volume.write_bytes(bytes(content))
    parsed.clear()
    second = run_ingest()
    assert parsed.total() == 1
    assert tree_hash(folder(second)) == before


def test_a_damaged_database_costs_time_and_nothing_else(filled, run_ingest, parsed):
    first = run_ingest()
    before, _ = again(folder(first))
    (first.workspace.identity / readings.READINGS_FILE).write_bytes(b"garbage" * 999)
    second = run_ingest()
    assert tree_hash(folder(second)) == before


def test_refusals_are_known_until_they_are_to_be_tried_again(filled, run_ingest, parsed):
    (filled.root / "ct" / "0002.dcm").write_bytes((filled.root / "ct" / "0002.dcm").read_bytes()[:400])
    first = run_ingest()
    reasons = Counter(first.catalog.quarantine["reason"])
    again(folder(first))
    parsed.clear()
    assert Counter(run_ingest().catalog.quarantine["reason"]) == reasons
    assert parsed.total() == 0
    assert retry(first.workspace.identity) > 0
    assert Counter(run_ingest().catalog.quarantine["reason"]) == reasons
    assert parsed.total() > 0


def test_series_too_thin_to_keep_are_known_and_read_again_once_they_are_wanted(filled, run_ingest, parsed):
    filled.nifti("p4_T1w.nii", np.abs(filled.voxels(4, shape=(12, 10, 8))))
    first = run_ingest(min_slices=5)
    assert first.reasons() == ["TOO_FEW_SLICES"] * 3
    before, _ = again(folder(first))
    parsed.clear()
    second = run_ingest(min_slices=5)
    assert parsed.total() == 0
    assert tree_hash(folder(second)) == before
    assert run_ingest(min_slices=4).catalog.series.height == 4
    assert +parsed == {"read_planned_volume": 2, "read_image_file": 1}


def test_load_dependent_refusals_are_not_kept():
    assert {"TIMEOUT", "OUT_OF_MEMORY", "CRASHED"} == readings.PASSING


def test_the_last_input_is_known(filled, run_ingest):
    first = run_ingest()
    assert last_input(first.workspace.identity) == filled.root.resolve()


def test_forgotten_names_leave_no_byte(filled, run_ingest):
    filled.nifti("MUELLER_T1w.nii", np.abs(filled.voxels(5)))
    first = run_ingest()
    path = first.workspace.identity / readings.READINGS_FILE
    assert b"MUELLER" in path.read_bytes()
    strip_databases(first.workspace.identity, replace(NO_TRACE, names=frozenset({"MUELLER_T1w.nii"})))
    assert b"MUELLER" not in path.read_bytes()
