"""What is known from an earlier ingest is not parsed again, and makes the same catalog."""

import hashlib
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.errors import QuarantineError
from pipeline.ingest import readings
from pipeline.ingest.identity_removal import NO_TRACE, strip_databases
from pipeline.ingest.layouts import dicom_series, nifti_cases, structures
from pipeline.ingest.plain_values import NotPlainError, decoded, encoded
from pipeline.ingest.retries import last_input, retry

T1 = "sub-01/anat/sub-01_T1w.nii"


@pytest.fixture
def parsed(monkeypatch):
    """Tasks that reached a parser, by parser."""
    counts = Counter()

    def counting(module, name):
        real = getattr(module, name)

        def outcomes(parse, tasks, limits):
            if tasks:
                counts[parse.__name__] += len(tasks)
            return real(parse, tasks, limits)

        monkeypatch.setattr(module, name, outcomes)

    real_volumes = dicom_series.volumes

    def volumes(plans, limits):
        counts["read_planned_volume"] += len(plans)
        return real_volumes(plans, limits)

    monkeypatch.setattr(dicom_series, "volumes", volumes)
    counting(dicom_series, "parse_each")
    counting(nifti_cases, "parse_all")
    counting(structures, "parse_all")
    return counts


@pytest.fixture
def structure_set():
    """Writes a structure set of one box on the third image of a series."""

    def write(path, images):
        image = pydicom.dcmread(images[2], stop_before_pixels=True)
        x, y, z = map(float, image.ImagePositionPatient)
        made, listed, drawn, contour = Dataset(), Dataset(), Dataset(), Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
        corners = [(x + 1, y + 1), (x + 8, y + 1), (x + 8, y + 9), (x + 1, y + 9)]
        contour.ContourData = [f"{value:.3f}" for corner in corners for value in (*corner, z)]
        named = Dataset()
        named.ReferencedSOPInstanceUID = image.SOPInstanceUID
        contour.ContourImageSequence = Sequence([named])
        listed.ROINumber, listed.ROIName, drawn.ReferencedROINumber = 1, "GTV", 1
        drawn.ContourSequence = Sequence([contour])
        made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
        made.Modality, made.StructureSetROISequence, made.ROIContourSequence = (
            "RTSTRUCT",
            Sequence([listed]),
            Sequence([drawn]),
        )
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.save_as(path, enforce_file_format=True)

    return write


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


def test_masks_and_structures_are_known_until_their_file_or_the_mapping_changes(
    inputs, run_ingest, parsed, structure_set
):
    paths, voxels = inputs.dicom("ct", seed=1)
    structure_set(inputs.root / "rs.dcm", paths)
    inputs.nifti("p3_T1w.nii", np.abs(inputs.voxels(3)))
    mask = np.zeros(voxels.shape, np.int16)
    mask[2:5, 3:6, 1:3] = 1
    inputs.nifti("mask.nii", mask)
    inputs.text("lesions.csv", "mask_path,image_path,mask_value,lesion_class\nmask.nii,p3_T1w.nii,1,cyst\n")
    first = run_ingest(lesion_classes={"GTV": "tumor"})
    assert (first.reasons(), sorted(first.catalog.lesions["lesion_class"])) == ([], ["cyst", "tumor"])
    drawn = {"read_references": 1, "draw_structures": 1, "read_mask": 1}
    assert parsed.items() >= drawn.items()
    before, _ = again(folder(first))
    parsed.clear()
    second = run_ingest(lesion_classes={"GTV": "tumor"})
    assert (parsed.total(), tree_hash(folder(second))) == (0, before)
    third = run_ingest(lesion_classes={"GTV": "growth"})
    assert parsed == {"draw_structures": 1}
    assert sorted(third.catalog.lesions["lesion_class"]) == ["cyst", "growth"]
    parsed.clear()
    mask[2, 3, 1] = 0
    inputs.nifti("mask.nii", mask)
    fourth = run_ingest(lesion_classes={"GTV": "growth"})
    assert parsed == {"read_mask": 1}
    (volume,) = (row["volume_mm3"] for row in fourth.catalog.lesions.to_dicts() if row["lesion_class"] == "cyst")
    assert volume == pytest.approx(17 * 9)


@pytest.mark.parametrize("order", "CF")
def test_masks_and_refusals_come_back_as_they_were_kept(order):
    mask = np.zeros((70, 60, 50), np.int16, order=order)
    mask[20:30, 10:20, 5] = [[7], [-2]] * 5
    refusal = QuarantineError("CONTOUR_GAP", "1 of 2", "Draw it.")
    kept = encoded(({3: "a", 9: "b"}, mask, (refusal,)), str)
    classes, voxels, (told,) = decoded(kept, {})
    assert classes == {3: "a", 9: "b"}
    np.testing.assert_array_equal(voxels, mask)
    assert (voxels.flags.f_contiguous, voxels.flags.writeable) == (order == "F", True)
    assert (told.reason, told.found, told.advice) == (refusal.reason, refusal.found, refusal.advice)


def test_voxels_that_do_not_pack_are_not_kept():
    noise = np.random.default_rng(0).integers(-32768, 32767, (100, 100, 100)).astype(np.int16)
    with pytest.raises(NotPlainError):
        encoded(noise, str)


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
