"""What is refused before a parser or decoder sees it; and that the refusal takes neither memory nor time."""

import os
import stat
import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom import structure
from pipeline.scan_io.dicom.guard import MAXIMUM_PIXEL_BYTES, check_pixel_claims
from pipeline.scan_io.dicom.open_file import open_file
from pipeline.scan_io.dicom.parsed_file import dataset
from pipeline.scan_io.dicom.structure import MAXIMUM_DEPTH

EXPLICIT, IMPLICIT, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.5"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


@pytest.fixture
def plain_file(files):
    return files.write("one", modality="MR")[0]


def _reason(call, *arguments):
    with pytest.raises(QuarantineError) as caught:
        call(*arguments)
    return caught.value.reason


def _body(path):
    """Offset of the data set."""
    return 144 + int(pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength)


def _sequence(inner, *, undefined, implicit=False):
    """A sequence of one item that holds ``inner``."""
    tag = struct.pack("<HH", 0x0040, 0xA730) + (b"" if implicit else b"SQ\0\0")
    if undefined:
        ends = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        return tag + struct.pack("<L", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + ends
    return tag + struct.pack("<L", len(inner) + 8) + struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner


def _nested(depth, **form):
    content = b""
    for _ in range(depth):
        content = _sequence(content, **form)
    return content


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("depth", [MAXIMUM_DEPTH + 1, 400, 5000])
def test_deep_sequences_are_refused(plain_file, undefined, implicit, depth):
    if implicit:
        changed = pydicom.dcmread(plain_file)
        changed.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        changed.save_as(plain_file, implicit_vr=True, little_endian=True)
    content = plain_file.read_bytes()[: _body(plain_file)]
    plain_file.write_bytes(content + _nested(depth, undefined=undefined, implicit=implicit))
    assert _reason(open_file, plain_file) == "TOO_DEEP"
    assert _reason(dataset, plain_file) == "TOO_DEEP"


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_as_deep_as_reports_are_read(plain_file, undefined):
    head = plain_file.read_bytes()[: _body(plain_file)]
    plain_file.write_bytes(head + _nested(30, undefined=undefined))
    item = dataset(plain_file)
    depth = 0
    while "ContentSequence" in item and item.ContentSequence:
        item, depth = item.ContentSequence[0], depth + 1
    assert depth == 30


def test_too_many_elements_are_refused(plain_file, monkeypatch):
    monkeypatch.setattr(structure, "MAXIMUM_ELEMENTS", 20_000)
    element = struct.pack("<HH2sH", 0x0011, 0x1001, b"CS", 0)
    head = plain_file.read_bytes()[: _body(plain_file)]
    plain_file.write_bytes(head + element * 20_001)
    assert _reason(open_file, plain_file) == "EXPANSION_LIMIT"


def _deflated(path, *, repeats):
    """A file whose data set inflates to many times 16 MiB."""
    changed = pydicom.dcmread(path)
    changed.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    changed.save_as(path)
    squeeze = zlib.compressobj(9, wbits=-15)
    content = squeeze.compress(struct.pack("<HH2sHL", 8, 1, b"OB", 0, repeats << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(path.read_bytes()[: _body(path)] + content + block * repeats + squeeze.flush())


def test_a_deflated_bomb_is_refused_without_being_inflated(plain_file):
    _deflated(plain_file, repeats=128)
    tracemalloc.start()
    assert _reason(open_file, plain_file) == "EXPANSION_LIMIT"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 450 << 20


def test_a_deflated_file_is_its_plain_twin(plain_file):
    plain = dataset(plain_file)
    twin = plain_file.with_name("deflated.dcm")
    changed = pydicom.dcmread(plain_file)
    changed.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    changed.save_as(twin)
    inflated = dataset(twin)
    assert inflated.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(inflated.pixel_array, plain.pixel_array)
    opened = open_file(twin)
    assert (opened.pixel_offset, opened.attributes.text("PatientID")) == (None, "P")


def test_deflated_bytes_that_end_early_are_truncated(plain_file):
    changed = pydicom.dcmread(plain_file)
    changed.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    changed.save_as(plain_file)
    content = plain_file.read_bytes()
    plain_file.write_bytes(content[: _body(plain_file) + 40])
    assert _reason(open_file, plain_file) == "TRUNCATED"


def test_a_file_cut_anywhere_before_its_pixels_is_refused(plain_file):
    whole = plain_file.read_bytes()
    offset = open_file(plain_file).pixel_offset
    reasons = set()
    for place in range(offset - 12):
        plain_file.write_bytes(whole[:place])
        try:
            opened = open_file(plain_file)
            reasons.add((opened.pixel_offset, opened.attributes.has("PixelData")))  # cut between two elements
        except QuarantineError as refusal:
            reasons.add(refusal.reason)
    assert reasons == {"NOT_DICOM", "TRUNCATED", (None, False)}


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"\x89PNG", "PNG"),
        (b"%PDF-1.7", "PDF"),
        (b"MZ", "magic"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, beginning, name):
    path = tmp_path / "file"
    path.write_bytes(beginning + (bytes(300) if beginning else b""))
    with pytest.raises(QuarantineError, match=name) as caught:
        open_file(path)
    assert caught.value.reason == "NOT_DICOM"


@pytest.mark.parametrize("magic", [b"MZ\x90\0", b"\x7fELF"])
def test_a_program_in_the_preamble_changes_nothing(plain_file, magic):
    content = plain_file.read_bytes()
    plain_file.write_bytes(magic.ljust(128, b"\x90") + content[128:])
    assert open_file(plain_file).attributes.text("PatientID") == "P"


def test_only_regular_files_are_opened(plain_file, tmp_path):
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(plain_file)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "absent"):
        assert _reason(open_file, path) in ("NOT_DICOM", "UNREADABLE")
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
    assert _reason(open_file, "/dev/zero") in ("NOT_DICOM", "UNREADABLE")


def test_a_file_without_transfer_syntax_is_refused(plain_file):
    content = plain_file.read_bytes()
    place = content.index(struct.pack("<HH2s", 2, 0x10, b"UI"))
    (length,) = struct.unpack_from("<H", content, place + 6)
    plain_file.write_bytes(content[:place] + content[place + 8 + length :])
    assert _reason(open_file, plain_file) == "MISSING_SYNTAX"


CLAIMS = [
    # rows, columns, frames, samples, bits, bytes, syntax, reason
    (512, 512, 1, 1, 16, 512 * 512 * 2, EXPLICIT, None),
    (512, 512, 1, 1, 16, 512 * 512 * 2 - 1, EXPLICIT, "PIXEL_CLAIM"),
    (512, 512, 300, 1, 16, 512 * 512 * 600, IMPLICIT, None),
    (9, 1, 1, 1, 1, 2, EXPLICIT, None),
    (9, 1, 1, 1, 1, 1, EXPLICIT, "PIXEL_CLAIM"),
    (0, 512, 1, 1, 16, 512, EXPLICIT, "PIXEL_CLAIM"),
    (512, 512, -1, 1, 16, 512, EXPLICIT, "PIXEL_CLAIM"),
    (40000, 40000, 1, 1, 16, 560, RLE, "EXPANSION_LIMIT"),
    (1000, 1000, 1, 1, 16, 560, RLE, "EXPANSION_LIMIT"),
    (512, 512, 1, 1, 16, 512 * 512 * 2 // 64, RLE, None),
    (512, 512, 1, 1, 16, 150, JPEG_LS, None),
    (512, 512, 1, 1, 16, 150, JPEG_2000, None),
    (65535, 65535, 1, 1, 16, 10**6, JPEG_2000, "EXPANSION_LIMIT"),
    (8192, 8192, 1, 1, 16, 1000, JPEG_2000, "EXPANSION_LIMIT"),
    (65535, 65535, 65535, 4, 64, 2**62, EXPLICIT, "EXPANSION_LIMIT"),
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_pixels_that_the_bytes_cannot_hold_are_refused(claim):
    *numbers, reason = claim
    if reason is None:
        check_pixel_claims(*numbers)
    else:
        assert _reason(check_pixel_claims, *numbers) == reason


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE, JPEG_LS, JPEG_2000])
def test_nothing_over_the_cap_is_decoded(syntax):
    rows = int(np.sqrt(MAXIMUM_PIXEL_BYTES)) + 1
    assert _reason(check_pixel_claims, rows, rows, 1, 1, 8, 2 * MAXIMUM_PIXEL_BYTES, syntax) == "EXPANSION_LIMIT"
