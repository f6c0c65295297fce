"""Planted identities: none may be found in a workspace outside ``identity/``, raw, inflated, ASCII or UTF-16."""

import gzip
import io
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pipeline.scan_io import write_nifti

TOKENS = [f"QZTOKEN{number:02d}" for number in range(30)]


def _planted_dicom(inputs):
    identity = replace(
        inputs.identity("QZTOKEN00", "dicom"), patient_name="QZTOKEN01^JANE", study_id="QZTOKEN02",
        study_date="19330305", patient_birth_date="19330304", accession_number="QZTOKEN03",
    )  # fmt: skip
    paths, _ = inputs.dicom("QZTOKEN04/series", 1, "MR", identity=identity)
    for number, path in enumerate(paths):
        item = pydicom.dcmread(path)
        item.InstitutionName, item.ReferringPhysicianName = "QZTOKEN05", "QZTOKEN06"
        item.SeriesDescription, item.ProtocolName = "AX T1 QZTOKEN07", "QZTOKEN08"
        item.PatientComments, item.ImageComments = "QZTOKEN09", "QZTOKEN10"
        item.BodyPartExamined = "QZTOKEN11"
        block = item.private_block(0x0009, "QZTOKEN12", create=True)
        block.add_new(0x01, "LO", "QZTOKEN13")
        block.add_new(0x02, "UN", b"QZTOKEN14")
        nested = Dataset()
        nested.PatientName = "QZTOKEN15"
        item.OtherPatientIDsSequence = Sequence([nested])
        item.preamble = b"QZTOKEN16".ljust(128, b"\0")
        item.save_as(path)
        path.rename(path.with_name(f"QZTOKEN17-{number}.dcm"))


def _planted_nifti(inputs):
    path = inputs.nifti("sub-QZTOKEN18/sub-QZTOKEN18_T1w.nii.gz", np.abs(inputs.voxels(2)))
    image = nib.Nifti1Image(np.abs(inputs.voxels(2)), inputs.affine)
    image.set_sform(inputs.affine, 1)
    image.header["descrip"], image.header["intent_name"] = b"QZTOKEN19", b"QZTOKEN20"
    image.header["aux_file"] = b"QZTOKEN21"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"QZTOKEN22"))
    nib.save(image, path)
    sidecar = {
        "Modality": "MR",
        "BodyPartExamined": "QZTOKEN23",
        "PatientID": "QZTOKEN24",
        "SeriesDescription": "QZTOKEN25",
    }
    inputs.text("sub-QZTOKEN18/sub-QZTOKEN18_T1w.json", json.dumps(sidecar))


def _planted_refusals(inputs):
    inputs.text("QZTOKEN26.dcm", "not DICOM")
    paths, _ = inputs.dicom("odd", 3, "MR", identity=inputs.identity("QZTOKEN27", "odd"))
    for path in paths:
        item = pydicom.dcmread(path)
        item.Modality = "QZTOKEN28"
        item.save_as(path)
    (inputs.root / "QZTOKEN29").symlink_to(inputs.root)


def _contents(folder, leave_out):
    """Every file below ``folder`` as bytes, compressed ones also inflated, tables also as text."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or leave_out in path.parents:
            continue
        content = path.read_bytes()
        yield path.relative_to(folder).as_posix().encode() + content
        if content[:2] == b"\x1f\x8b":
            yield gzip.GzipFile(fileobj=io.BytesIO(content)).read()
        if path.suffix == ".parquet":
            yield json.dumps(pl.read_parquet(path).to_dicts()).encode()


def _found(contents, words):
    everything = b"\0".join(contents).upper()
    return sorted(
        {
            word
            for word in words
            for encoding in ("ascii", "utf-16-le", "utf-16-be")
            if word.encode(encoding) in everything
        }
    )


@pytest.fixture
def planted(inputs, run_ingest, caplog, capfd):
    _planted_dicom(inputs)
    _planted_nifti(inputs)
    _planted_refusals(inputs)
    result = run_ingest()
    captured = capfd.readouterr()
    return result, (captured.out + captured.err + caplog.text).encode()


def test_planted_identities_stay_in_the_identity_folder(inputs, planted):
    result, printed = planted
    assert result.record.facts["series"] == 2
    assert result.reasons() == ["LINK", "NOT_DICOM", "UNSUPPORTED_MODALITY"]
    dates = ["19330304", "19330305"]
    uids = [inputs.identity("QZTOKEN00", "dicom").series_uid, inputs.identity("QZTOKEN00").study_uid]
    root = result.workspace.root
    assert _found([*_contents(root, result.workspace.identity), printed], [*TOKENS, *dates, *uids]) == []
    kept = _found(_contents(result.workspace.identity, root / "none"), [*TOKENS, *uids])
    assert {"QZTOKEN00", "QZTOKEN04", "QZTOKEN17", "QZTOKEN18", *uids} <= set(kept)


def test_the_search_itself_finds_every_planted_token(inputs):
    _planted_dicom(inputs)
    _planted_nifti(inputs)
    _planted_refusals(inputs)
    names = b"\0".join(str(path).encode() for path in inputs.root.rglob("*"))
    assert _found([*_contents(inputs.root, inputs.root / "none"), names], TOKENS) == TOKENS


def _planted_volume(inputs, name):
    path = inputs.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, np.abs(inputs.voxels(len(name))), inputs.affine, np.int16)
    image = nib.load(path)
    image.header["descrip"], image.header["aux_file"] = b"QZTOKEN00", b"QZTOKEN01"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)


def _planted_synthrad(inputs):
    for name in ("mr.nii.gz", "ct.nii.gz", "mask.nii.gz"):
        _planted_volume(inputs, f"QZTOKEN02/QZTOKEN03/{name}")
    inputs.text("QZTOKEN02/QZTOKEN03/ct.json", json.dumps({"PatientID": "QZTOKEN04", "Modality": "CT"}))
    _planted_volume(inputs, "QZTOKEN02/QZTOKEN05.nii.gz")
    inputs.text("QZTOKEN02/QZTOKEN06/mr.mha", "QZTOKEN07")


def _planted_decathlon(inputs):
    for name in ("imagesTr/QZTOKEN02.nii.gz", "imagesTs/QZTOKEN03.nii.gz", "imagesTr/QZTOKEN05.nii.gz"):
        _planted_volume(inputs, name)
    content = {
        "name": "QZTOKEN06", "description": "QZTOKEN07", "QZTOKEN08": "QZTOKEN09", "modality": {"QZTOKEN10": "CT"},
        "labels": {"0": "QZTOKEN11", "1": "liver"},
        "training": [{"image": "imagesTr/QZTOKEN02.nii.gz", "label": "labelsTr/QZTOKEN12.nii.gz"}],
        "test": ["./imagesTs/QZTOKEN03.nii.gz"],
    }  # fmt: skip
    inputs.text("dataset.json", json.dumps(content))


def _planted_nnunet(inputs):
    for name in ("QZTOKEN02_0000", "QZTOKEN03_0000", "QZTOKEN03_0001", "QZTOKEN05"):
        _planted_volume(inputs, f"imagesTr/{name}.nii.gz")
    for name in ("QZTOKEN02", "QZTOKEN06"):
        path = inputs.root / f"labelsTr/{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_nifti(path, np.ones((12, 10, 4)), inputs.affine, np.uint8)
    content = {
        "channel_names": {"0": "CT", "1": "QZTOKEN07"}, "labels": {"QZTOKEN08": 0, "liver": 1},
        "file_ending": ".nii.gz", "description": "QZTOKEN09", "licence": "QZTOKEN10",
    }  # fmt: skip
    inputs.text("dataset.json", json.dumps(content))


PLANTED_SETS = {
    "synthrad": (_planted_synthrad, 2, ["NO_CASE", "UNREADABLE"]),
    "decathlon": (_planted_decathlon, 2, ["MISSING_REFERENCE", "NOT_LISTED"]),
    "nnunet": (_planted_nnunet, 2, ["MISSING_REFERENCE", "MISSING_REFERENCE", "NOT_LISTED", "UNKNOWN_MODALITY"]),
}
"""Layout → how identities are planted, series that are accepted, reasons of what is not."""


@pytest.mark.parametrize("layout", PLANTED_SETS)
def test_identities_planted_in_a_set_stay_in_the_identity_folder(inputs, run_ingest, caplog, capfd, layout):
    plant, series, reasons = PLANTED_SETS[layout]
    plant(inputs)
    result = run_ingest(layout=layout)
    captured = capfd.readouterr()
    assert (result.record.facts["series"], result.reasons()) == (series, reasons)
    printed = (captured.out + captured.err + caplog.text).encode()
    root = result.workspace.root
    assert _found([*_contents(root, result.workspace.identity), printed], TOKENS) == []
    assert {"QZTOKEN02", "QZTOKEN03"} <= set(_found(_contents(result.workspace.identity, root / "none"), TOKENS))
