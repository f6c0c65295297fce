"""The quick walk gives what pydicom gives, or leaves the file to it."""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom import plain
from pipeline.scan_io.dicom.open_file import open_file
from pipeline.scan_io.dicom.parsed_file import dataset, open_with_pydicom
from pipeline.scan_io.dicom.plain_attributes import PlainAttributes
from pipeline.scan_io.dicom.plain_keys import CHARACTER_SETS, PRIVATE, TAGS
from pipeline.scan_io.dicom.read_header import read_header

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent"))
CREATORS = ("SIEMENS MR HEADER", "SIEMENS CSA HEADER", "Philips Imaging DD 001", "GEMS_PARM_01")
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


def _told(question, *arguments):
    try:
        value = question(*arguments)
    except QuarantineError as error:
        return str(error)
    return type(value), value


def _seen(attributes):
    """Every answer to every question."""
    seen = {
        (name, keyword): _told(getattr(attributes, name), keyword)
        for keyword in TAGS
        for name in (
            ("has",) if keyword.endswith("Sequence") else ("has", "text", "texts", "number", "numbers", "whole")
        )
    }
    private = {
        (creator, *place): _told(attributes.private, creator, *place) for creator in CREATORS for place in PRIVATE
    }
    return seen | private


def _compared(path):
    """Whether the walk took the file; where it did, its answers are those of pydicom."""
    try:
        found = plain.walk(path)
    except plain.NotPlain:
        return False
    outcome = _told(open_with_pydicom, path)
    if isinstance(outcome, str):  # values that decide whether there are plain pixels cannot be read, in either way
        assert _told(open_file, path) == outcome
        return False
    slow = outcome[1]
    quick = PlainAttributes(found.values, lambda: slow.attributes)
    assert _seen(quick) == _seen(slow.attributes)
    assert (found.transfer_syntax_uid, found.size) == (slow.transfer_syntax_uid, slow.size)
    if slow.pixel_offset is not None:
        assert (found.pixel_offset, found.pixel_length) == (slow.pixel_offset, slow.pixel_length)
    return True


def _files(root):
    endings = {".nii", ".gz", ".json", ".md", ".txt", ".csv", ".tsv"}
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in endings]


@pytest.fixture
def item(files):
    """A plain file of our own and its data set."""
    path = files.write("plain", modality="MR")[0]
    return path, pydicom.dcmread(path)


@pytest.fixture
def series(tmp_path):
    from tests.pipeline.scan_io.dicom.conftest import SeriesFiles

    return SeriesFiles(tmp_path)


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("implicit", [False, True])
def test_our_own_files_are_plain(files, modality, implicit):
    for path in files.write("own", modality=modality):
        if implicit:
            changed = pydicom.dcmread(path)
            changed.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            changed.save_as(path, implicit_vr=True, little_endian=True)
        assert _compared(path)
        opened = open_file(path)
        pixels = path.read_bytes()[opened.pixel_offset :][: opened.pixel_length]
        assert pixels == pydicom.dcmread(path).PixelData


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder")
@pytest.mark.parametrize(
    ("folder", "least"),
    [("dicom_odd", 80), ("rtstruct", 6), pytest.param("dicom_reference", 450, marks=pytest.mark.slow)],
)
def test_public_files_are_seen_as_pydicom_sees_them(folder, least):
    assert sum(map(_compared, _files(DATA / folder))) >= least


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_mutants_are_seen_as_pydicom_sees_them_or_left_to_it(files, mutant, modality, seed):
    rng = random.Random(seed)  # noqa: S311
    path = files.write("mutant", modality=modality)[0]
    whole = path.read_bytes()
    for _ in range(5):
        path.write_bytes(mutant(whole, rng)[1])
        _compared(path)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder")
@pytest.mark.parametrize("seed", range(8))
def test_mutants_of_public_files_are_seen_as_pydicom_sees_them_or_left_to_it(tmp_path, mutant, seed):
    rng = random.Random(seed)  # noqa: S311
    small = [path for path in _files(DATA / "dicom_odd") if path.stat().st_size < 60_000]
    small += [path for path in _files(DATA / "dicom_reference")[::12] if path.stat().st_size < 120_000]
    target = tmp_path / "mutant"
    taken = 0
    for path in small:
        whole = path.read_bytes()
        for _ in range(20):
            target.write_bytes(mutant(whole, rng)[1])
            taken += _compared(target)
    assert taken > 200


TEXTS = {
    "ISO_IR 100": "Häder 5 µm",
    "ISO_IR 192": "Häder 五",
    "GB18030": "五",
    "ISO_IR 144": "Пять",
    "\\ISO 2022 IR 87": "五",
    "\\ISO 2022 IR 87 ": "ASCII",
    "ISO_IR 13": "ASCII",
}


@pytest.mark.parametrize("charset", TEXTS)
def test_texts_in_any_character_set_are_those_of_pydicom(item, charset):
    path, changed = item
    changed.SpecificCharacterSet = charset.split("\\")
    changed.SeriesDescription = TEXTS[charset]
    changed.save_as(path)
    assert _compared(path)
    assert open_file(path).attributes.text("SeriesDescription") == TEXTS[charset]


def _explicit(tag, vr, value):
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    wide = vr in (b"OB", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HL", 0, len(value)) if wide else struct.pack("<H", len(value))) + value


ODD = {
    "odd length": _explicit(0x00100040, b"CS", b"M"),
    "unknown VR": _explicit(0x00100040, b"ZZ", b"M "),
    "out of order": _explicit(0x00080005, b"CS", b"ISO_IR 100"),
    "undefined UN": struct.pack("<HH2sHL", 0x0011, 0x1010, b"UN", 0, 0xFFFFFFFF)
    + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
    "item delimiter": struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_element_leaves_the_file_to_pydicom(item, name):
    path, _ = item
    content = path.read_bytes()
    place = content.index(struct.pack("<HH", 0x0010, 0x0040))
    path.write_bytes(content[:place] + ODD[name] + content[place:])
    with pytest.raises(plain.NotPlain):
        plain.walk(path)


def test_a_repeated_element_leaves_the_file_to_pydicom(item):
    path, _ = item
    content = path.read_bytes()
    place = content.index(struct.pack("<HH", 0x0010, 0x0020))
    path.write_bytes(content[:place] + _explicit(0x00100020, b"LO", b"OTHER ") + content[place:])
    with pytest.raises(plain.NotPlain):
        plain.walk(path)


def test_sequences_of_any_length_are_passed_over(item):
    path, changed = item
    inner = pydicom.Dataset()
    inner.Rows, inner.PatientID = 9999, "INNER"
    outer = pydicom.Dataset()
    outer.ReferencedImageSequence = [inner, inner]
    outer.PatientID = "OUTER"
    for undefined in (False, True):
        changed.SourceImageSequence = [outer, outer]
        changed.SourceImageSequence.is_undefined_length = undefined
        for thing in changed.SourceImageSequence:
            thing.is_undefined_length_sequence_item = undefined
            thing["ReferencedImageSequence"].is_undefined_length = undefined
        changed.save_as(path)
        assert _compared(path)
        attributes = open_file(path).attributes
        assert (attributes.whole("Rows"), attributes.text("PatientID")) == (5, "P")
        assert attributes.items("SourceImageSequence")[1].items("ReferencedImageSequence")[0].whole("Rows") == 9999


def test_private_elements_are_found_in_the_block_of_their_creator(item):
    path, changed = item
    changed.private_block(0x0019, "SOMEONE ELSE", create=True).add_new(0x0C, "IS", "7")
    changed.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    changed.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"SV10")
    changed.save_as(path)
    assert _compared(path)
    attributes = open_file(path).attributes
    assert attributes.private("SIEMENS MR HEADER", 0x0019, 0x0C) == 1000
    assert attributes.private("SIEMENS CSA HEADER", 0x0029, 0x10) == b"SV10"
    assert attributes.private("GEMS_PARM_01", 0x0043, 0x39) is None


@pytest.mark.parametrize("value", ["1.5\\x", "nan", "1e999", "inf", "--1"])
def test_a_number_that_is_none_is_named_by_its_keyword_alone(item, value):
    path, _ = item
    content = path.read_bytes()
    head = struct.pack("<HH2sH", 0x0028, 0x0030, b"DS", 8)
    place = content.index(struct.pack("<HH2s", 0x0028, 0x0030, b"DS"))
    (length,) = struct.unpack_from("<H", content, place + 6)
    path.write_bytes(content[:place] + head + value.ljust(8).encode() + content[place + 8 + length :])
    with pytest.raises(QuarantineError, match=r"BAD_VALUE.*PixelSpacing") as caught:
        open_file(path).attributes.numbers("PixelSpacing")
    assert value not in str(caught.value)


@pytest.mark.parametrize(("representation", "stored", "expected"), [(1, 63536, -2000), (0, 63536, 63536), (1, 5, 5)])
@pytest.mark.parametrize("implicit", [False, True])
def test_padding_is_signed_as_the_pixels_are(item, representation, stored, expected, implicit):
    path, changed = item
    changed.PixelRepresentation = representation
    changed.add_new("PixelPaddingValue", "US", stored)
    if implicit:
        changed.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    changed.save_as(path, implicit_vr=implicit, little_endian=True)
    assert open_file(path).attributes.whole("PixelPaddingValue") == expected
    assert open_with_pydicom(path).attributes.whole("PixelPaddingValue") == expected


def test_big_endian_files_are_opened_by_pydicom(item):
    path, changed = item
    pixels = changed.pixel_array
    big = pydicom.Dataset()
    for element in changed:
        big.add_new(element.tag, element.VR, element.value)
    big.file_meta = changed.file_meta
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.PixelData = pixels.astype(">i2").tobytes()
    big.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    opened = open_file(path)
    assert (opened.pixel_offset, opened.attributes.whole("Rows")) == (None, pixels.shape[0])
    np.testing.assert_array_equal(dataset(path).pixel_array, pixels)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_headers_of_plain_files_are_read_without_pydicom(files, monkeypatch, modality):
    def never(path):
        raise AssertionError(path)

    monkeypatch.setattr("pipeline.scan_io.dicom.parsed_file.open_with_pydicom", never)
    for path in files.write("quick", modality=modality):
        assert read_header(path).refusal is None


def test_plain_volumes_are_read_without_loading_pydicom_or_simpleitk(files):
    paths = [str(path) for path in files.write("lean", modality="CT")]
    code = (
        "import sys; from pathlib import Path; from pipeline.ingest.scan_parsers import *\n"
        "from pipeline.scan_io.dicom.grouping import group_headers\n"
        "from pipeline.scan_io.dicom.volume_plan import DicomPolicy\n"
        "paths = tuple(map(Path, sys.argv[1:]))\n"
        "(plan,) = group_headers(list(zip(paths, read_headers(paths))), DicomPolicy()).plans\n"
        "assert read_planned_volume(plan).voxels.any()\n"
        "sys.exit(', '.join({'pydicom', 'SimpleITK', 'nibabel', 'scipy'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_tables_of_the_quick_walk_are_those_of_pydicom():
    assert set(python_encoding) == CHARACTER_SETS
    assert {keyword: tag_for_keyword(keyword) for keyword in TAGS} == TAGS
