"""Public sets in the folder named by SCANLOOM_TEST_DATA; skipped where it is absent."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from PIL import Image

from pipeline.errors import InputError

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent"))
SEGMENTS = ("SEG", "RTSTRUCT")
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder of public test data"),
]


def test_slice_pairs_of_six_cases(run_ingest):
    result = run_ingest(DATA / "mr_ct_head_pairs")
    facts = result.record.facts
    assert (facts["layout"], facts["series"], facts["subjects"], facts["quarantined"]) == ("slice_pairs", 212, 6, 0)
    assert result.catalog.series["pair_key"].n_unique() == 106
    sizes = result.catalog.series.filter(pl.col("modality") == "MR").group_by("subject_id").len()["len"].sort()
    assert sizes.to_list() == [16, 17, 18, 18, 18, 19]  # cases 28, 21, 16, 20, 32, 2


def test_class_folders_and_their_near_copies(run_ingest):
    result = run_ingest(DATA / "brain_tumor_mri")
    facts = result.record.facts
    assert facts["lesion_classes"] == {"glioma": 500, "meningioma": 500, "notumor": 500, "pituitary": 500}
    assert facts["quarantined"] == 0
    clusters = result.catalog.series.group_by("subject_id").len()["len"]
    assert 1400 < len(clusters) < 1900
    assert clusters.max() < 40
    row = result.catalog.series.row(0, named=True)
    assert row["shape"][:2] == [224, 224]


def test_an_imbalanced_npz_file(run_ingest):
    facts = run_ingest(DATA / "pneumoniamnist/pneumoniamnist_imbalanced.npz").record.facts
    assert facts["lesion_classes"] == {"class-0": 388 + 135 + 234, "class-1": 3494 + 389 + 390}
    with pytest.raises(InputError, match=r"2 \.npz files"):
        run_ingest(DATA / "pneumoniamnist")


def test_images_without_class_folders_are_explained(run_ingest):
    with pytest.raises(InputError, match=r"1270 \.png"):
        run_ingest(DATA / "ct_slices/real")


def test_slices_broken_as_published_are_quarantined(inputs, run_ingest):
    broken = ["1BB002-063", "1BB007-153", "1PA012-109", "1PA019-098", "1PC027-021"]
    files = [DATA / f"ct_slices/real/GT_{name}.png" for name in broken]
    good = [path for path in sorted((DATA / "ct_slices/real").glob("*.png"))[:5] if path not in files]
    for path in (*files, *good):
        (inputs.root / "ct").mkdir(exist_ok=True)
        (inputs.root / "ct" / path.name).write_bytes(path.read_bytes())
    result = run_ingest()
    assert len(result.reasons()) == len(broken)
    assert set(result.reasons()) <= {"TRUNCATED", "UNREADABLE"}
    stack = result.catalog.image(result.catalog.series.row(0, named=True))
    assert any(np.array_equal(stack, np.asarray(Image.open(path).convert("L"))) for path in good)


def test_nine_encodings_of_a_mosaic_are_one_series(run_ingest):
    result = run_ingest(DATA / "dicom_reference/dcm_qa_ts/In")
    (row,) = result.catalog.series.to_dicts()
    assert (row["shape"], row["volume_label"], result.reasons()) == ([64, 64, 35], None, [])


def test_reference_series_are_accepted_or_refused_with_a_reason(run_ingest):
    result = run_ingest(DATA / "dicom_reference")
    reasons = result.record.facts["quarantine_reasons"]
    assert reasons.keys() >= {"MISSING_SLICE", "NOT_3D", "UNSUPPORTED_COLOR", "NOT_A_VOLUME", "TOO_FEW_SLICES"}
    assert not reasons.keys() & {"CRASHED", "TIMEOUT", "OUT_OF_MEMORY", "UNREADABLE", "GANTRY_TILT"}
    tilted = result.catalog.series.filter(pl.col("tilt_degrees").is_not_null())
    assert tilted["tilt_degrees"].to_list() == pytest.approx([14.0])
    assert tilted["flags"].to_list() == [["TILT_CORRECTED"]]
    assert result.record.facts["modalities"].keys() == {"MR", "CT"}
    times = result.catalog.series.filter(pl.col("volume_label").str.starts_with("repeat"))
    assert times.group_by("series_uid").len()["len"].max() == 10


def test_odd_files_are_accepted_or_refused_with_a_reason(run_ingest):
    result = run_ingest(DATA / "dicom_odd")
    counts = dict(result.record.facts["quarantine_reasons"])
    assert counts["NOT_DICOM"] == 5  # the five that open only by force
    assert not counts.keys() & {"CRASHED", "TIMEOUT", "OUT_OF_MEMORY"}
    files = sum(result.catalog.quarantine["files"]) + sum(
        len(set(uids)) for uids in result.catalog.series["sop_instance_uids"]
    )
    paths = [path for path in (DATA / "dicom_odd").rglob("*") if path.is_file()]
    drawn = sum(_is_structure(path) for path in paths) if result.catalog.lesions.height else 0
    assert files + result.record.facts["ignored"] + drawn >= len(paths)


def _is_structure(path):
    try:
        return pydicom.dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).get("Modality") in SEGMENTS
    except pydicom.errors.InvalidDicomError:
        return False
