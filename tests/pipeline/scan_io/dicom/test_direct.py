"""Slices read straight into a volume hold what the long way gives, or are left to it."""

import numpy as np
import pytest

from pipeline.scan_io.dicom.direct import read_direct
from pipeline.scan_io.dicom.header import DicomHeader, FrameHeader, PixelFormat
from pipeline.scan_io.dicom.modality import modality_values
from pipeline.scan_io.dicom.pixels import FrameSource
from pipeline.scan_io.scan import ScanFacts

OFFSET = 10


def _header(pixels, offset=OFFSET):
    return DicomHeader("image", "CT", "", "", "1.2.840.10008.1.2.1", 0, ScanFacts(), pixels, offset)


def _frame(slope=None, intercept=None, **more):
    return FrameHeader(0, -1, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0), (1.0, 1.0), slope, intercept, **more)


def _file(tmp_path, words):
    path = tmp_path / "slice"
    path.write_bytes(bytes(OFFSET) + np.asarray(words, "<u2").tobytes())
    return path


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "high"), [(16, 15), (12, 11), (12, 15), (10, 13), (1, 0)])
@pytest.mark.parametrize("intercept", [None, 0.0, -1024.0, 1.0, 32767.0])
@pytest.mark.parametrize("largest", [0x7FFF, 0xFFFF])
def test_values_are_those_of_the_long_way(tmp_path, signed, stored, high, intercept, largest):
    rng = np.random.default_rng(stored + 17 * high)
    path = _file(tmp_path, rng.integers(0, largest, (5, 7), endpoint=True))
    pixels = PixelFormat(5, 7, 16, stored, high, signed)
    header, frame = _header(pixels), _frame(1.0, intercept)
    expected = modality_values(*FrameSource().stored(path, header, frame), pixels, frame, "MR")
    target = np.full((5, 7), 99, np.int16)
    done = read_direct(path, header, frame, "MR", target)
    assert done == (expected.dtype == np.int16)
    if done:
        np.testing.assert_array_equal(target, expected)


def test_a_later_frame_lies_behind_the_ones_before(tmp_path):
    path = _file(tmp_path, np.arange(40))
    target = np.empty((4, 5), np.int16)
    assert read_direct(path, _header(PixelFormat(4, 5, 16, 16, 15, False)), _frame()._replace(frame=1), "MR", target)
    np.testing.assert_array_equal(target.ravel(), np.arange(20, 40))


@pytest.mark.parametrize(
    ("pixels", "frame", "offset"),
    [
        (PixelFormat(4, 5, 16, 16, 15, False, padding=(0, 0)), _frame(), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False, inverted=True), _frame(), OFFSET),
        (PixelFormat(4, 5, 8, 8, 7, False), _frame(), OFFSET),
        (PixelFormat(5, 4, 16, 16, 15, False), _frame(), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame(2.0), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame(1.0, 0.5), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame(lookup=True), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame()._replace(tile=0), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame()._replace(frame=1), OFFSET),
        (PixelFormat(4, 5, 16, 16, 15, False), _frame(), None),
    ],
)
def test_what_needs_more_is_left_to_the_long_way(tmp_path, pixels, frame, offset):
    path = _file(tmp_path, np.arange(20))
    assert not read_direct(path, _header(pixels, offset), frame, "MR", np.empty((4, 5), np.int16))


def test_links_and_missing_files_are_not_read(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(_file(tmp_path, np.arange(20)))
    header = _header(PixelFormat(4, 5, 16, 16, 15, False))
    for path in (link, tmp_path / "none", tmp_path):
        assert not read_direct(path, header, _frame(), "MR", np.empty((4, 5), np.int16))
