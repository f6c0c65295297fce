"""Files made to break their reader: each costs itself, the good series beside it is catalogued."""

import gzip
import os
import stat
import struct
import time
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from pipeline.safe_parse import Limits, parse_all

ZEROS = bytes(1 << 24)
PROGRAM = b"MZ\x90\0 a program in the preamble"


def _one_slice(inputs):
    """Path of a series of one slice, its dataset, and the offset at which its file meta information ends."""
    paths, _ = inputs.dicom("bomb", 9, "MR", identity=inputs.identity("BOMB"))
    for path in paths[1:]:
        path.unlink()
    item = pydicom.dcmread(paths[0])
    return paths[0], item


def _with_body(path, body):
    """Replace everything after the file meta information (PS3.10 7.1: its length is the first element)."""
    length = 144 + int(pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength)
    path.write_bytes(path.read_bytes()[:length] + body)


def _rle_bomb(inputs):
    """A few hundred bytes that claim 40,000 × 40,000 pixels."""
    path, item = _one_slice(inputs)
    item.file_meta.TransferSyntaxUID = RLELossless
    item.Rows = item.Columns = 40000
    segments = struct.pack("<16L", 2, 64, 80, *[0] * 13) + b"\x81\x00" * 16
    item.PixelData = encapsulate([segments])
    item.save_as(path)


def _deflated_bomb(inputs):
    """Two megabytes that inflate to two gigabytes."""
    path, item = _one_slice(inputs)
    item.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    item.save_as(path)
    squeeze = zlib.compressobj(9, wbits=-15)
    start = squeeze.compress(struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 1 << 31)) + squeeze.flush(
        zlib.Z_FULL_FLUSH
    )
    block = squeeze.compress(ZEROS) + squeeze.flush(zlib.Z_FULL_FLUSH)
    _with_body(path, start + block * 128 + squeeze.flush())


def _nifti_bomb(inputs, side=1024):
    """A gzip file of two megabytes that inflates to two gigabytes, of which a header claims side³ voxels."""
    path = inputs.nifti("bomb_T1w.nii", np.zeros((4, 4, 4), np.int16))
    header = bytearray(path.read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, side, side, side, 1, 1, 1, 1)
    path.unlink()
    (inputs.root / "bomb_T1w.nii.gz").write_bytes(gzip.compress(bytes(header)) + gzip.compress(ZEROS) * 128)


def _nifti_tail(inputs):
    """The same behind the voxels of a small image."""
    _nifti_bomb(inputs, side=8)


def _nested(inputs, depth=5000):
    """Sequences within each other."""
    path, _ = _one_slice(inputs)
    opening = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    _with_body(path, opening * depth)


def _nested_400(inputs):
    """As many as break a recursive parser."""
    _nested(inputs, 400)


def _random(inputs):
    """A DICOM magic before random bytes."""
    path, _ = _one_slice(inputs)
    path.write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000))


def _packed(inputs):
    """A sound file, packed."""
    path, _ = _one_slice(inputs)
    path.write_bytes(gzip.compress(path.read_bytes()))


def _claim(inputs):
    """More rows than there are bytes."""
    path, item = _one_slice(inputs)
    item.Rows = item.Columns = 30000
    item.save_as(path)


BOMBS = [
    (_rle_bomb, {"EXPANSION_LIMIT"}),
    (_deflated_bomb, {"EXPANSION_LIMIT"}),
    (_nifti_bomb, {"EXPANSION_LIMIT", "TOO_LARGE", "OUT_OF_MEMORY"}),
    (_nifti_tail, {"EXPANSION_LIMIT", "TRAILING_BYTES"}),
    (_nested, {"TOO_DEEP"}),
    (_nested_400, {"TOO_DEEP"}),
    (_random, {"NOT_DICOM", "TRUNCATED", "MISSING_SYNTAX", "UNREADABLE"}),
    (_packed, {"NOT_DICOM"}),
    (_claim, {"PIXEL_CLAIM", "TRUNCATED"}),
]


@pytest.mark.parametrize(("plant", "reasons"), BOMBS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bomb_is_quarantined_quickly_and_the_run_goes_on(inputs, run_ingest, plant, reasons):
    plant(inputs)
    inputs.dicom("good", 1)
    assert [outcome.result for outcome in parse_all(len, ["warm"], Limits(60, 1400))] == [4]
    started = time.monotonic()
    result = run_ingest(timeout_s=20)
    assert time.monotonic() - started < 10
    assert result.record.facts["modalities"] == {"CT": 1}
    assert len(result.reasons()) == 1
    assert set(result.reasons()) <= reasons


def _state(root, left_out):
    """Kind, mode, time and content of everything below a folder, but for one part of it."""
    state = {}
    for path in sorted(root.rglob("*")):
        if left_out not in (path, *path.parents):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            state[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return state


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_hostile_tree_changes_nothing_outside_the_workspace(tmp_path, inputs, run_ingest):
    inputs.dicom("good", 1)
    secret = tmp_path / "secret.dcm"
    secret.write_bytes((inputs.root / "good" / "0001.dcm").read_bytes())
    paths, _ = inputs.dicom("climbing", 2, "MR", identity=inputs.identity("../../../climbed"))
    for path in paths:
        item = pydicom.dcmread(path)
        item.StudyInstanceUID, item.SeriesInstanceUID = "../../../study", "../../../series"
        item.SeriesDescription, item.SOPInstanceUID = "../../../T1", f"../../{path.stem}"
        item.save_as(path)
        path.write_bytes(PROGRAM.ljust(128, b"\x90") + path.read_bytes()[128:])
    os.symlink(secret, inputs.root / "link.dcm")
    os.symlink("/dev/zero", inputs.root / "device.dcm")
    os.symlink(inputs.root, inputs.root / "loop")
    os.link(secret, inputs.root / "hard.dcm")
    os.mkfifo(inputs.root / "pipe.dcm")
    before = _state(tmp_path, tmp_path / "workspace")
    started = time.monotonic()
    result = run_ingest()
    assert time.monotonic() - started < 10
    assert _state(tmp_path, tmp_path / "workspace") == before
    assert {"LINK", "SPECIAL_FILE"} <= set(result.reasons())
    written = [path for path in (tmp_path / "workspace").rglob("*") if path.is_file()]
    assert not [path for path in written if "climbed" in path.name or ".." in path.name]
    assert not [path for path in written if PROGRAM in path.read_bytes()]


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_never_stops_the_run(inputs, run_ingest, seed):
    rng = np.random.default_rng(seed)
    for series in range(3):
        paths, _ = inputs.dicom(f"damaged{series}", series, identity=inputs.identity(f"P{series}"))
        for path in paths:
            content = bytearray(path.read_bytes())
            for place in rng.integers(132, len(content), 6):
                content[place] = rng.integers(256)
            path.write_bytes(bytes(content[: rng.integers(len(content) // 2, len(content) + 1)]))
    inputs.dicom("good", 9, "MR")
    facts = run_ingest().record.facts
    assert facts["modalities"].get("MR") == 1
    assert facts["quarantined"] >= 3
