"""Siemens mosaics made by the test from a volume, and CSA headers made byte by byte."""

import contextlib
import math
import struct

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scan_io import read_dicom_series
from pipeline.scan_io.dicom.csa import CSAError, csa_values


def csa2(tags):
    """A CSA2 header after the published layout."""
    content = b"SV10\4\3\2\1" + struct.pack("<2i", len(tags), 77)
    for name, values in tags.items():
        content += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 4, max(len(values), 6), 77)
        for value in [*values, *[""] * (6 - len(values))]:
            text = value.encode() + b"\0" if value else b""
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


def csa1(tags):
    """A CSA1 header: lengths are told relative to the number of items of the first tag."""
    content = struct.pack("<2i", len(tags), 77)
    base = max(len(next(iter(tags.values()))), 6)
    for name, values in tags.items():
        count = max(len(values), 6)
        content += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 4, count, 77)
        for value in [*values, *[""] * (count - len(values))]:
            text = value.encode() + b"\0" if value else b""
            content += struct.pack("<4i", len(text) + base, len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


TAGS = {"Other": ["x", "yz"], "NumberOfImagesInMosaic": ["5"], "SliceNormalVector": ["0.0", "-0.5", "0.866"]}
WANTED = frozenset({"NumberOfImagesInMosaic", "SliceNormalVector"})


@pytest.mark.parametrize("write", [csa1, csa2])
def test_both_encodings_give_the_items(write):
    found = csa_values(write(TAGS), WANTED)
    assert found == {"NumberOfImagesInMosaic": ("5",), "SliceNormalVector": ("0.0", "-0.5", "0.866")}


@pytest.mark.parametrize("write", [csa1, csa2])
def test_every_cut_is_an_error_never_a_crash(write):
    content = write(TAGS)
    for length in range(len(content) - 24):
        with pytest.raises(CSAError):
            csa_values(content[:length], WANTED)


@given(st.binary(max_size=400), st.sampled_from([b"", b"SV10\4\3\2\1\2\0\0\0\x4d\0\0\0"]))
def test_random_bytes_end_in_values_or_an_error(noise, start):
    with contextlib.suppress(CSAError):
        csa_values(start + noise, WANTED)


def mosaic(files, affine, count, *, descending=False, told=None, private=True, spacing=True):
    """A sheet of ``count`` slices of 8 × 6 pixels, and its volume (i, j, k) as the header means it."""
    voxels = files.voxels(3, (6, 8, count))
    (path, *_) = files.write("one", voxels, affine=affine)
    item = pydicom.dcmread(path)
    across = math.ceil(math.sqrt(count))
    sheet = np.zeros((8 * across, 6 * across), "<i2")
    for number in range(count):
        down, right = divmod(number, across)
        place = count - 1 - number if descending else number
        sheet[down * 8 : down * 8 + 8, right * 6 : right * 6 + 6] = voxels[:, :, place].T
    row, column = np.array(item.ImageOrientationPatient[:3], float), np.array(item.ImageOrientationPatient[3:], float)
    between_rows, between_columns = map(float, item.PixelSpacing)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    first = lps[:3, 3] + (lps[:3, 2] * (count - 1) if descending else 0)
    corner = first - row * between_columns * (6 * across - 6) / 2 - column * between_rows * (8 * across - 8) / 2
    normal = lps[:3, 2] / np.linalg.norm(lps[:3, 2]) * (-1 if descending else 1)
    item.ImagePositionPatient = [float(f"{value:.9g}") for value in corner]
    item.Rows, item.Columns = sheet.shape
    item.PixelData = sheet.tobytes()
    item.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    item.SpacingBetweenSlices = float(np.linalg.norm(lps[:3, 2])) if spacing else None
    tags = {"NumberOfImagesInMosaic": [str(count)], "SliceNormalVector": [f"{value:.8f}" for value in normal]}
    if private:
        item.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa2(tags))
    if told is not None:
        item.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", told)
    item.save_as(path)
    return path, voxels


def oblique():
    turn = np.radians(25)
    axes = np.array([[-1, 0, 0], [0, -np.cos(turn), np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = np.eye(4)
    affine[:3, :3] = axes * [2.0, 1.5, 4.0]
    affine[:3, 3] = [30, 40, -20]
    return affine


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("count", [1, 4, 5, 9, 11])
def test_tiles_come_back_as_the_volume_in_its_place(files, count, descending):
    affine = oblique()
    if np.linalg.det(np.diag([-1, -1, 1]) @ affine[:3, :3]) < 0:
        affine[:3, 2] *= -1
    path, voxels = mosaic(files, affine, count, descending=descending, told=count)
    scan = read_dicom_series([path])
    np.testing.assert_array_equal(scan.voxels, voxels)
    np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"told": 7}, "2 different numbers of tiles in a mosaic"),
        ({"private": False, "told": 5}, "a mosaic without its SliceNormalVector"),
        ({"spacing": False}, "a mosaic without SpacingBetweenSlices"),
    ],
)
def test_a_mosaic_whose_layout_is_unclear_is_refused(files, refusal, more, found):
    path, _ = mosaic(files, oblique(), 5, **more)
    error = refusal([path])
    assert (error.reason, error.found) == ("MOSAIC_GEOMETRY", found)
