"""Files made to break their reader: each costs itself, the good series beside it is catalogued."""

import gzip
import struct
import time
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

ZEROS = bytes(1 << 24)


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


def _nifti_bomb(inputs):
    """A gzip file of two megabytes that inflates to two gigabytes of voxels."""
    path = inputs.nifti("bomb_T1w.nii", np.zeros((4, 4, 4), np.int16))
    header = bytearray(path.read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 1024, 1024, 1024, 1, 1, 1, 1)
    path.unlink()
    (inputs.root / "bomb_T1w.nii.gz").write_bytes(gzip.compress(bytes(header)) + gzip.compress(ZEROS) * 128)


def _nested(inputs):
    """Sequences nested 5,000 deep."""
    path, _ = _one_slice(inputs)
    opening = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    _with_body(path, opening * 5000)


@pytest.mark.parametrize(
    ("plant", "reasons"),
    [
        (_rle_bomb, {"OUT_OF_MEMORY", "DECODE_FAILED", "CRASHED"}),
        (_deflated_bomb, {"OUT_OF_MEMORY"}),
        (_nifti_bomb, {"EXPANSION_LIMIT"}),
        (_nested, {"UNREADABLE", "CRASHED"}),
    ],
)
def test_a_bomb_is_quarantined_quickly_and_the_run_goes_on(inputs, run_ingest, plant, reasons):
    plant(inputs)
    inputs.dicom("good", 1)
    started = time.monotonic()
    result = run_ingest(memory_limit_mb=1200, timeout_s=20)
    assert time.monotonic() - started < 10
    assert result.record.facts["modalities"] == {"CT": 1}
    assert len(result.reasons()) == 1
    assert set(result.reasons()) <= reasons


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
