"""More than 500 planted tokens: none may be found outside ``identity/``, however a file packs or spells it."""

import base64
import gzip
import io
import json
import logging
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
import SimpleITK
from pydicom.datadict import DicomDictionary as dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pipeline.scan_io import SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
ROOT = Path(__file__).resolve().parents[3]
TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
FOR_EACH_VR = 30
AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])

NEEDED = frozenset(
    """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType
    ImageOrientationPatient ImagePositionPatient PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation
    PhotometricInterpretation RescaleSlope RescaleIntercept RescaleType SamplesPerPixel NumberOfFrames
    SpecificCharacterSet BurnedInAnnotation GantryDetectorTilt InstanceNumber AcquisitionNumber
    TemporalPositionIdentifier EchoNumbers EchoTime PixelAspectRatio WindowCenter WindowWidth LossyImageCompression
    PresentationLUTShape RecognizableVisualFeatures PixelPaddingValue
    """.split()  # noqa: SIM905
)
"""What decides whether a file can be read at all; a token there would only be refused."""

NUMBERS = {"DS": "73{0:08d}", "IS": "73{0:07d}", "DA": "1733{0:04d}", "DT": "1733{0:04d}1200", "TM": "0412.73{0:04d}",
           "AS": "{0:03d}W", "UI": "1.2.733.{0:06d}.4711"}  # fmt: skip
"""How a token looks where letters are not allowed."""


class Tokens:
    """Hands out tokens that occur nowhere else."""

    def __init__(self):
        self.given = []

    def word(self):
        self.given.append(f"QZT{len(self.given):04d}W")
        return self.given[-1]

    def value(self, vr):
        if vr not in NUMBERS:
            return self.word()
        made = NUMBERS[vr].format(len(self.given) % 10000)
        if len(made) >= 8:  # shorter ones, like ages, occur by chance
            self.given.append(made)
        return made


def _fields():
    """Keywords by VR, spread over the whole dictionary; group 2 is the file's own, retired ones count too."""
    fields = {vr: [] for vr in TEXT_VRS}
    for tag in sorted(dictionary):
        vr, keyword = dictionary_VR(tag), keyword_for_tag(tag)
        if vr in fields and keyword and keyword not in NEEDED and 0x0008 <= tag >> 16 < 0x5400:
            fields[vr].append(keyword)
    first = {"PatientName", "PatientID", "InstitutionName", "SeriesDescription", "ProtocolName", "BodyPartExamined",
             "PatientPosition", "StudyDate", "StationName", "AccessionNumber", "PatientComments"}  # fmt: skip
    spread = {}
    for vr, names in fields.items():
        rest = [name for name in names if name not in first]
        spread[vr] = [name for name in names if name in first] + rest[:: max(1, len(rest) // FOR_EACH_VR)]
    return spread


def _plant_everywhere(item, tokens):
    """Tokens into text attributes of every VR, private blocks, nested sequences, overlays, curves, icon, preamble."""
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    for vr, keywords in _fields().items():
        for keyword in keywords:
            item.add(_element(keyword, vr, tokens.value(vr)))
    for group in (0x0009, 0x0029, 0x0031):
        block = item.private_block(group, tokens.word(), create=True)
        for number, vr in enumerate(("LO", "SH", "UN", "OB", "LT", "PN"), start=1):
            word = tokens.word()
            block.add_new(number, vr, word.encode() + b"\0" * (len(word) % 2) if vr in {"UN", "OB"} else word)
    deepest = Dataset()
    deepest.PatientName = tokens.word()
    for _ in range(6):
        outer = Dataset()
        outer.PatientID, outer.InstitutionName = tokens.word(), tokens.word()
        outer.ReferencedPatientSequence = Sequence([deepest])
        deepest = outer
    item.RequestAttributesSequence = Sequence([deepest])
    for tag, vr in ((0x60003000, "OW"), (0x50003000, "OW"), (0x00420011, "OB"), (0xFFFCFFFC, "OB")):
        word = tokens.word()
        item.add_new(tag, vr, word.encode() + b"\0" * (len(word) % 2))
    for tag, vr in ((0x60000022, "LO"), (0x60001500, "LO"), (0x50000022, "LO"), (0x50002500, "LO")):
        item.add_new(tag, vr, tokens.word())
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.SamplesPerPixel, icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 1, 8, 8, 7, 0
    icon.PhotometricInterpretation = "MONOCHROME2"
    icon.PixelData = tokens.word().encode() + b"\0" * 8
    item.IconImageSequence = Sequence([icon])
    item.preamble = tokens.word().encode().ljust(128, b"\0")
    item.file_meta.SourceApplicationEntityTitle = tokens.word()
    item.file_meta.PrivateInformationCreatorUID = tokens.value("UI")
    item.file_meta.PrivateInformation = tokens.word().encode()


def _element(keyword, vr, value):
    return DataElement(keyword, vr, value, validation_mode=pydicom.config.IGNORE)


CHARSETS = {"ISO_IR 100": "Jörg", "ISO_IR 192": "Łukasz山田", "ISO 2022 IR 87": "山田", "GB18030": "王小东"}


@pytest.fixture
def planted(tmp_path):
    """An input with tokens in every place that a reader comes by; returns its folder and the tokens."""
    tokens = Tokens()
    root = tmp_path / "planted"
    before = pydicom.config.settings.writing_validation_mode
    try:
        _plant_dicom(root, tokens)
        _plant_charsets(root, tokens)
        _plant_nifti(root, tokens)
        _plant_others(root, tokens)
    finally:
        pydicom.config.settings.writing_validation_mode = before
    return root, tokens.given


def _series(folder, seed, patient, modality="MR"):
    voxels = np.random.default_rng(seed).integers(0, 1500, (40, 36, 4)).astype(np.int16)
    who = SeriesIdentity(patient, *(uid_from(patient, name) for name in ("study", "series", "frame")))
    return write_dicom_series(folder, voxels, AFFINE, modality, who, Acquisition(body_part="HEAD"))


def _plant_dicom(root, tokens):
    folder = root / tokens.word() / tokens.word()
    paths = _series(folder, 1, "plain")
    template = pydicom.dcmread(paths[0])
    _plant_everywhere(template, tokens)
    keep = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "SliceLocation", "PixelData")
    for number, path in enumerate(paths):
        item = pydicom.dcmread(path)
        for keyword in keep:
            template[keyword] = item[keyword]
        template.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        template.save_as(path)
        path.rename(path.with_name(f"{tokens.word()}-{number}.dcm"))


def _plant_charsets(root, tokens):
    for number, (charset, name) in enumerate(CHARSETS.items()):
        for path in _series(root / f"charset{number}", 20 + number, f"charset{number}"):
            item = pydicom.dcmread(path)
            item.SpecificCharacterSet = ["", charset] if "2022" in charset else charset
            item.PatientName = f"{tokens.word()}^{name}"
            item.InstitutionName, item.PatientComments = f"{tokens.word()} {name}", f"{tokens.word()}{name}"
            item.save_as(path)


def _plant_nifti(root, tokens):
    voxels = np.random.default_rng(40).integers(0, 900, (40, 36, 5)).astype(np.int16)
    label = f"sub-{tokens.word()}"
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_sform(AFFINE, 1)
    for field in ("descrip", "intent_name", "aux_file", "db_name"):
        image.header[field] = tokens.word().encode()
    for code in ("comment", "dicom", "afni", "ecode"):
        content = tokens.word().encode() if code != "dicom" else _dicom_extension(tokens)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code if code != "ecode" else 12, content))
    path = root / label / f"{label}_T1w.nii.gz"
    path.parent.mkdir()
    nib.save(image, path)
    names = ("PatientID", "PatientName", "SeriesDescription", "BodyPartExamined", "ProtocolName", "InstitutionName",
             "PatientPosition", "ImageComments", "StudyInstanceUID", "StudyDate")  # fmt: skip
    sidecar = {name: tokens.word() for name in names} | {
        "Modality": "MR",
        tokens.word(): {tokens.word(): [tokens.word()]},
    }
    path.with_name(f"{label}_T1w.json").write_text(json.dumps(sidecar))
    metaimage = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0))
    for key in ("Comment", "ObjectName", "PatientName"):
        metaimage.SetMetaData(key, tokens.word())
    SimpleITK.WriteImage(metaimage, str(root / f"{tokens.word()}_T1w.mha"))


def _dicom_extension(tokens):
    buffer = io.BytesIO()
    item = Dataset()
    item.PatientName = tokens.word()
    pydicom.dcmwrite(buffer, item, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


def _plant_others(root, tokens):
    """What is refused or passed over: its name and content stay inside too."""
    (root / f"{tokens.word()}.dcm").write_text(tokens.word())
    (root / f"{tokens.word()}.nii").write_text(tokens.word() * 60)
    (root / f"{tokens.word()}.mha").write_text(f"ObjectType = Image\nComment = {tokens.word()}\nNDims = 9\n")
    (root / f"{tokens.word()}.txt").write_text(tokens.word())
    (root / f"README-{tokens.word()}").symlink_to(root)
    for number, modality in enumerate((tokens.word(), "SR", "RTSTRUCT", "SEG")):
        (path, *_) = _series(root / f"odd{number}", 50 + number, f"odd{number}")
        item = pydicom.dcmread(path)
        item.Modality, item.SeriesDescription = modality, tokens.word()
        item.StructureSetLabel, item.StructureSetName = tokens.word(), tokens.word()
        roi, segment = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIDescription = 1, tokens.word(), tokens.word()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentDescription = 1, tokens.word(), tokens.word()
        item.StructureSetROISequence, item.SegmentSequence = Sequence([roi]), Sequence([segment])
        item.save_as(path)
        for rest in _[:]:
            rest.unlink()
    broken = root / f"{tokens.word()}-cut.dcm"
    (source, *_) = _series(root / "cut", 60, tokens.word())
    broken.write_bytes(source.read_bytes()[:700])


def _shown(capfd, caplog):
    captured = capfd.readouterr()
    return (captured.out + captured.err + caplog.text).encode()


def test_no_token_leaves_the_identity_folder(planted, run_ingest, find_words, capfd, caplog):
    root, tokens = planted
    caplog.set_level(logging.DEBUG)
    assert len(tokens) == len(set(tokens)) >= 500
    result = run_ingest(root, layout="scans")
    assert result.record.facts["series"] >= 2 + len(CHARSETS)
    printed = _shown(capfd, caplog)
    assert find_words(result.workspace.root, tokens, leave_out=["identity"], extra=printed) == []
    crosswalk = json.loads(next(result.workspace.identity.glob("crosswalk-*.json")).read_text())
    assert set(crosswalk["subjects"].values()) & set(tokens[:400]), "the series with a token in every attribute is in"
    kept = {line.rpartition(": ")[2] for line in find_words(result.workspace.identity, tokens)}
    assert len(kept) > 10  # what was planted did come by


def test_shifted_dates_and_kept_derived_images_leak_nothing_either(planted, run_ingest, find_words, capfd, caplog):
    root, tokens = planted
    result = run_ingest(root, layout="scans", dates="shift", derived="keep", burned_in_text="keep")
    printed = _shown(capfd, caplog)
    assert find_words(result.workspace.root, tokens, leave_out=["identity"], extra=printed) == []


def test_every_token_can_be_found_in_the_input(planted, find_words):
    """The search and the planting are worth something: what the input holds is found there."""
    root, tokens = planted
    found = {line.rpartition(": ")[2] for line in find_words(root, tokens)}
    assert set(tokens) - found == set()


PACKS = ("raw", "name", "utf16", "utf16be", "base64", "hex", "gz", "zip", "npz", "parquet", "sqlite", "gz in zip",
         "sqlite blob", "lower")  # fmt: skip


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("offset", range(3))
def test_the_search_finds_a_token_in_every_container(tmp_path, find_words, pack, offset):
    token = Tokens().word()
    raw = b"x" * offset + token.encode() + b"tail"
    text = raw.decode()
    path = tmp_path / "file"
    if pack == "parquet":
        table = pl.DataFrame({"a": ["b"] * 50 + [text], "c": [[text]] * 51})
        table.write_parquet(tmp_path / "t.parquet", compression="zstd")
    elif pack.startswith("sqlite"):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (v)")
            connection.execute("INSERT INTO t VALUES (?)", (raw if "blob" in pack else text,))
    elif pack == "npz":
        np.savez_compressed(tmp_path / "t.npz", a=np.frombuffer(raw, np.uint8))
    elif pack == "name":
        (tmp_path / text).write_bytes(b"")
    else:
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", gzip.compress(raw) if pack == "gz in zip" else raw)
        content = {
            "raw": raw, "utf16": text.encode("utf-16-le"), "utf16be": text.encode("utf-16-be"), "lower": raw.lower(),
            "base64": base64.b64encode(raw), "hex": raw.hex().encode(), "gz": gzip.compress(raw),
            "zip": zipped.getvalue(),
            "gz in zip": zipped.getvalue(),
        }[pack]  # fmt: skip
        path.write_bytes(content)
    found = find_words(tmp_path, [token, "QZT9999W"])
    assert found
    assert all(line.endswith(token) for line in found)


def test_a_failing_command_prints_no_token(planted, tmp_path, find_words):
    """A refused ingest and a fault of ours: no token in output, logs or traceback, as long as --debug is off."""
    root, tokens = planted
    script = (
        "import sys, pipeline.ingest.catalog_builder as b\n"
        "def broken(self, found): raise RuntimeError(repr(found.scan.facts))\n"
        "b.CatalogBuilder._add_volume = broken\n"
        "from flows.command_line import main; main()"
    )
    command = ["ingest", "--input", str(root), "--workspace", str(tmp_path / "w"), "--set", "ingest.layout=scans"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 70
    assert "RuntimeError" in done.stderr
    printed = (done.stdout + done.stderr).encode()
    assert find_words(tmp_path / "w", tokens, leave_out=["identity"], extra=printed) == []
