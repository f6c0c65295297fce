"""Stored bits to values: sign, depth, junk beside the bits, padding, per-slice scales, tables, codecs, byte orders."""

import io
import tracemalloc

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.scan_io import read_dicom_series, read_dicom_volumes, uid_from
from pipeline.scan_io.dicom.header import PixelFormat
from pipeline.scan_io.dicom.pixels import sample_values, tile_of


@given(
    st.sampled_from([8, 16, 32]),
    st.data(),
    st.booleans(),
)
def test_only_the_stored_bits_count_with_their_own_sign(allocated, data, signed):
    """Against a definition bit by bit: shift down, mask, subtract 2ⁿ where the highest stored bit is set."""
    stored = data.draw(st.integers(1, allocated))
    high = data.draw(st.integers(stored - 1, allocated - 1))
    words = data.draw(st.lists(st.integers(0, (1 << allocated) - 1), min_size=1, max_size=8))
    pixels = PixelFormat(1, len(words), allocated, stored, high, signed)
    raw = np.array(words, dtype=f"<u{allocated // 8}").view(f"<{'i' if signed else 'u'}{allocated // 8}")
    expected = [(word >> (high - stored + 1)) & ((1 << stored) - 1) for word in words]
    if signed:
        expected = [value - (1 << stored) if value >> (stored - 1) else value for value in expected]
    assert sample_values(raw, pixels).tolist() == expected


@pytest.mark.parametrize("junk", [False, True])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_signedness_depth_padding_and_overlay_bits_do_not_shift_hu(files, bits, signed, padded, junk):
    hu = np.arange(np.prod(files.shape)).reshape(files.shape) % 900 - 450
    paths = files.write("a", hu, "CT")
    padding = -(1 << (bits - 1)) if signed else (1 << bits) - 1

    def store(item):
        stored = item.pixel_array.astype(np.int64) - (1024 if signed else 0)
        if padded:
            stored[0, 0] = padding
            item.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
        item.RescaleIntercept = "0" if signed else "-1024"
        item.PixelRepresentation, item.BitsStored, item.HighBit = signed, bits, bits - 1
        words = stored & ((1 << bits) - 1) if bits < 16 else stored
        if junk and bits < 16:
            words = words | (0b0101 << 12)  # an overlay in the high bits, as before 2004
        item.PixelData = (words & 0xFFFF).astype("<u2").tobytes()

    files.edit(paths, store)
    expected = hu.copy()
    if padded:
        expected[0, 0, :] = -1024
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, expected)


def test_padding_range_and_confused_sign(files):
    paths = files.write("a", np.full(files.shape, 50), "CT")

    def store(item):
        pixels = item.pixel_array.copy()
        pixels[0, 0], pixels[0, 1], pixels[1, 0] = -2000, -1990, -1979
        item.PixelData = pixels.astype("<i2").tobytes()
        item.add_new("PixelPaddingValue", "US", 65536 - 2000)  # SS written as US
        item.add_new("PixelPaddingRangeLimit", "SS", -1980)

    files.edit(paths, store)
    voxels = read_dicom_series(paths).voxels
    assert (voxels[0, 0] == -1024).all()
    assert (voxels[1, 0] == -1024).all()
    assert (voxels[0, 1] == -1979 - 1024).all()


def test_mr_padding_becomes_zero(files):
    paths = files.write("a", np.full(files.shape, 70))
    files.edit(paths, lambda item: item.add_new("PixelPaddingValue", "SS", 70))
    assert (read_dicom_series(paths).voxels == 0).all()


def test_a_scale_for_each_slice_is_applied_to_each_slice(files):
    voxels = files.voxels()
    paths = files.write("a", voxels, RescaleSlope=lambda k: f"0.{k + 1}", RescaleIntercept=lambda k: str(k))
    found = read_dicom_series(paths).voxels
    assert found.dtype == np.float32
    expected = voxels * (np.arange(1, 7) / 10) + np.arange(6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_whole_numbers_stay_integers_though_a_scale_is_told(files):
    paths = files.write("a", files.voxels(), RescaleSlope="2", RescaleIntercept="-3")
    found = read_dicom_series(paths).voxels
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, files.voxels() * 2 - 3)


def test_a_late_slice_that_needs_floats_does_not_change_the_early_ones(files):
    paths = files.write("a", files.voxels(), RescaleSlope=lambda k: "0.5" if k == 5 else "1", RescaleIntercept="0")
    found = read_dicom_series(paths).voxels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., :5], files.voxels()[..., :5])
    np.testing.assert_array_equal(found[..., 5], files.voxels()[..., 5] / 2)


def test_unsigned_values_beyond_int16_are_kept(files):
    paths = files.write("a", files.voxels())

    def store(item):
        item.PixelRepresentation = 0
        item.PixelData = (item.pixel_array.astype(np.uint16) + 60000).tobytes()

    files.edit(paths, store)
    found = read_dicom_series(paths).voxels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, files.voxels().astype(int) + 60000)


def test_hu_are_rounded_and_limited_to_int16(files):
    paths = files.write("a", np.zeros(files.shape), "CT", RescaleSlope="100.5", RescaleIntercept=lambda k: str(k * 0.5))
    found = read_dicom_series(paths).voxels  # stored 1024
    np.testing.assert_array_equal(found, np.minimum(np.rint(1024 * 100.5 + np.arange(6) * 0.5), 32767) + 0 * found)


def test_monochrome1_pair(files):
    plain, inverted = files.write("a"), files.write("b", series="other")

    def invert(item):
        item.PhotometricInterpretation = "MONOCHROME1"
        item.BitsStored, item.HighBit, item.PixelRepresentation = 12, 11, 0
        item.PixelData = (4095 - item.pixel_array).astype("<u2").tobytes()

    files.edit(inverted, invert)
    np.testing.assert_array_equal(read_dicom_series(inverted).voxels, read_dicom_series(plain).voxels)


def test_a_modality_table_is_looked_up(files):
    paths = files.write("a", files.voxels() % 16, "CT")

    def store(item):
        del item.RescaleSlope, item.RescaleIntercept, item.RescaleType
        item.PixelRepresentation = 0
        item.PixelData = (np.frombuffer(item.PixelData, "<i2") - 1024).astype("<u2").tobytes()
        table = pydicom.Dataset()
        table.add_new("LUTDescriptor", "US", [16, 0, 16])
        table.ModalityLUTType = "HU"
        table.add_new("LUTData", "US", [value**2 for value in range(16)])
        item.ModalityLUTSequence = [table]

    files.edit(paths, store)
    expected = (files.voxels() % 16) ** 2
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_codecs_equal_raw(files, syntax):
    paths = files.write("a", files.voxels(1, (40, 36, 3)))
    raw = read_dicom_series(paths).voxels

    def compress(item):
        item.compress(syntax, generate_instance_uid=False)

    files.edit(paths, compress)
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, raw)


def test_lossy_jpeg_is_read_as_any_decoder_reads_it_and_flagged(files):
    smooth = np.add.outer(np.add.outer(np.arange(40), 2 * np.arange(36)), 3 * np.arange(3)).astype(np.int16)
    paths = files.write("a", smooth)
    decoded = []

    def compress(item):
        content = io.BytesIO()
        Image.fromarray(item.pixel_array.astype(np.uint8)).save(content, "JPEG", quality=90)
        decoded.append(np.asarray(Image.open(content)).T)
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 8, 8, 7, 0
        item.PixelData = encapsulate([content.getvalue()])
        item["PixelData"].VR, item["PixelData"].is_undefined_length = "OB", True
        item.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    files.edit(paths, compress)
    scan = read_dicom_series(paths)
    assert scan.facts.flags == ("LOSSY",)
    assert np.abs(scan.voxels - np.stack(decoded, axis=-1).astype(int)).max() <= 1  # rounding of the cosine transform
    assert np.abs(scan.voxels - smooth).max() <= 8


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_byte_orders_and_deflation_equal_explicit_little_endian(files, syntax):
    paths = files.write("a", files.voxels(), "CT")
    raw = read_dicom_series(paths).voxels
    for path in paths:
        item = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            item.PixelData = item.pixel_array.astype(">i2").tobytes()
        fresh = pydicom.Dataset({element.tag: element for element in item})
        fresh.file_meta, fresh.preamble = item.file_meta, item.preamble
        fresh.file_meta.TransferSyntaxUID = syntax
        fresh.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, raw)


def test_bytes_of_eight_bits(files):
    paths = files.write("a", files.voxels() % 256)

    def store(item):
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 8, 8, 7, 0
        content = np.frombuffer(item.PixelData, "<i2").astype(np.uint8)
        item.PixelData = content.tobytes() + b"\0" * (content.size % 2)
        item["PixelData"].VR = "OB"

    files.edit(paths, store)
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, files.voxels() % 256)


def test_a_syntax_without_decoder_is_named(files, refusal):
    paths = files.write("a")

    def pretend(item):
        item.PixelData = encapsulate([item.PixelData])
        item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        item["PixelData"].VR, item["PixelData"].is_undefined_length = "OB", True

    files.edit(paths, pretend)
    error = refusal(paths)
    assert (error.reason, "MPEG-4 AVC" in error.found) == ("UNSUPPORTED_SYNTAX", True)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codec_of_another_size_than_claimed_is_refused_though_the_pixels_are_as_many(files, refusal, syntax):
    paths = files.write("a", files.voxels(1, (40, 36, 3)))

    def compress(item):
        item.compress(syntax, generate_instance_uid=False)
        item.Rows, item.Columns = 40, 36

    files.edit(paths, compress)
    error = refusal(paths)
    assert (error.reason, error.found) == ("DECODE_FAILED", "an image of 36 x 40 pixels instead of 40 x 36")


def test_volumes_are_lean_in_memory(files):
    """Peak of the reader: the volume, and less than another tenth of it."""
    paths = files.write("a", np.zeros((256, 256, 48), np.int16), "CT")
    read_dicom_series(paths)
    tracemalloc.start()
    scan = read_dicom_series(paths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * scan.voxels.nbytes + 2**20


def test_a_tile_is_cut_row_by_row():
    sheet = np.arange(36).reshape(6, 6)
    assert tile_of(sheet, 4, 3).tolist() == [[14, 15], [20, 21]]


def test_slices_of_one_volume_may_differ_in_sign_and_depth(files):
    paths = files.write("a", files.voxels(), "CT")

    def unsigned(item):
        item.PixelRepresentation, item.BitsStored, item.HighBit = 0, 12, 11

    files.edit(paths[::2], unsigned)
    np.testing.assert_array_equal(read_dicom_series(paths).voxels, files.voxels())
    assert len(read_dicom_volumes(paths)) == 1
    assert read_dicom_series(paths).facts.sop_instance_uids[0] == uid_from("a", "0")
