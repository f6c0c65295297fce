"""Faults planted into NIfTI files byte by byte: each is refused with its own reason, or read as the standard says."""

import gzip
import itertools
import math
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.safe_parse import Limits, parse_all
from pipeline.scan_io import ImagePolicy, Scan, read_nifti

SHAPE = (6, 5, 4)
AFFINE = np.array([[-2.0, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 3.0, 11], [0, 0, 0, 1]])
FIELDS = {  # NIfTI-1 header: offset, struct format
    "sizeof_hdr": (0, "i"), "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"),
    "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "B"),
    "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern_b": (256, "f"), "srow_x": (280, "4f"),
    "magic": (344, "4s"),
}  # fmt: skip


def voxels(dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    return (np.arange(math.prod(shape)).reshape(shape) % 251).astype(dtype)


def content(
    data: NDArray[Any] | None = None, affine: NDArray[np.float64] = AFFINE, kind: Any = nib.Nifti1Image
) -> bytes:
    image = kind(voxels() if data is None else data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image.to_bytes()


def patched(source: bytes, **fields: Any) -> bytes:
    changed = bytearray(source)
    for name, value in fields.items():
        offset, form = FIELDS[name]
        struct.pack_into("<" + form, changed, offset, *(value if isinstance(value, tuple) else (value,)))
    return bytes(changed)


def read(tmp_path: Path, source: bytes, name: str = "a.nii", **policy: Any) -> Scan:
    (tmp_path / name).write_bytes(source)
    return read_nifti(tmp_path / name, ImagePolicy(**policy))


def refused(tmp_path: Path, source: bytes, name: str = "a.nii", **policy: Any) -> QuarantineError:
    with pytest.raises(QuarantineError) as caught:
        read(tmp_path, source, name, **policy)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "reason", "found"),
    [
        ({"sizeof_hdr": 347}, "UNREADABLE", "no NIfTI header"),
        ({"magic": b"ni1\0"}, "UNSUPPORTED_FORMAT", "pair"),
        ({"magic": b"\0\0\0\0"}, "UNSUPPORTED_FORMAT", "Analyze"),
        ({"dim": (0, 6, 5, 4, 1, 1, 1, 1)}, "BAD_VALUE", "dim[0] = 0"),
        ({"dim": (8, 6, 5, 4, 1, 1, 1, 1)}, "BAD_VALUE", "dim[0] = 8"),
        ({"dim": (2, 6, 5, 4, 1, 1, 1, 1)}, "NOT_3D", "shape (6, 5)"),
        ({"dim": (3, 6, 0, 4, 1, 1, 1, 1)}, "NOT_3D", "shape (6, 0, 4)"),
        ({"dim": (3, 6, -5, 4, 1, 1, 1, 1)}, "NOT_3D", "shape (6, -5, 4)"),
        ({"dim": (4, 6, 5, 2, 2, 1, 1, 1)}, "NOT_3D", "shape (6, 5, 2, 2)"),
        ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "TRUNCATED", f"{2 * 32767**3 + 352} bytes promised"),
        ({"dim": (3, 6, 5, 5, 1, 1, 1, 1)}, "TRUNCATED", "652 bytes promised by the header, 592 bytes in the file"),
        ({"datatype": 128, "bitpix": 24}, "UNSUPPORTED_DTYPE", "code 128 (RGB)"),
        ({"datatype": 2304, "bitpix": 32}, "UNSUPPORTED_DTYPE", "code 2304 (RGB)"),
        ({"datatype": 32, "bitpix": 64}, "UNSUPPORTED_DTYPE", "code 32 (complex)"),
        ({"datatype": 1536, "bitpix": 128}, "UNSUPPORTED_DTYPE", "code 1536"),
        ({"datatype": 1, "bitpix": 1}, "UNSUPPORTED_DTYPE", "code 1 "),
        ({"datatype": 77}, "UNSUPPORTED_DTYPE", "code 77"),
        ({"datatype": 16}, "BAD_VALUE", "bitpix 16 with datatype code 16 of 32 bits"),
        ({"vox_offset": 351.0}, "BAD_VALUE", "vox_offset 351"),
        ({"vox_offset": math.nan}, "BAD_VALUE", "vox_offset nan"),
        ({"vox_offset": -16.0}, "BAD_VALUE", "vox_offset -16"),
        ({"vox_offset": 1e30}, "BAD_VALUE", "vox_offset 1e+30"),
        ({"vox_offset": 4096.0}, "TRUNCATED", "4336 bytes promised"),
        ({"scl_slope": 2.0, "scl_inter": math.nan}, "BAD_VALUE", "scl_slope 2 with scl_inter nan"),
        ({"xyzt_units": 5}, "BAD_VALUE", "unit code 5"),
        ({"xyzt_units": 1}, "IMPLAUSIBLE_SPACING", "2000 x 1500 x 3000 mm (unit of the header: meter)"),
        ({"xyzt_units": 3}, "IMPLAUSIBLE_SPACING", "0.002 x 0.0015 x 0.003 mm (unit of the header: micron)"),
        ({"sform_code": 0, "qform_code": 0}, "NO_ORIENTATION", "sform_code 0"),
        ({"sform_code": 0, "pixdim": (1, 0, 1.5, 3, 1, 1, 1, 1)}, "SINGULAR_AFFINE", "voxel size"),
        ({"sform_code": 0, "pixdim": (1, -2, 1.5, 3, 1, 1, 1, 1)}, "SINGULAR_AFFINE", "pixdim 1, -2, 1.5, 3"),
        ({"sform_code": 0, "quatern_b": 3.0}, "SINGULAR_AFFINE", "no rotation"),
        ({"srow_x": (0.0, 0.0, 0.0, 5.0)}, "SINGULAR_AFFINE", "sform with voxel size [0.0, 1.5, 3.0]"),
        ({"srow_x": (0.0, 1.5, 0.0, 5.0)}, "SINGULAR_AFFINE", "sform with voxel"),
        ({"srow_x": (math.nan, 0.0, 0.0, 5.0)}, "SINGULAR_AFFINE", "non-finite"),
    ],
)
def test_a_planted_fault_has_its_reason_and_its_numbers(tmp_path, fields, reason, found):
    error = refused(tmp_path, patched(content(), **fields))
    assert (error.reason, found in error.found) == (reason, True), error
    compressed = refused(tmp_path, gzip.compress(patched(content(), **fields)), "a.nii.gz")
    assert compressed.reason == ("EXPANSION_LIMIT" if 32767 in fields.get("dim", ()) else reason)


def test_the_unit_bits_of_time_do_not_count(tmp_path):
    assert read(tmp_path, patched(content(), xyzt_units=2 | 8)).geometry.spacing_mm == pytest.approx((2.0, 1.5, 3.0))


@pytest.mark.parametrize(
    ("slope", "inter"), [(0.0, 5.0), (math.nan, 5.0), (math.inf, 1.0), (1.0, 0.0), (math.nan, math.nan)]
)
def test_a_slope_that_is_none_leaves_values_as_they_are_stored(tmp_path, slope, inter):
    scan = read(tmp_path, patched(content(), scl_slope=slope, scl_inter=inter))
    np.testing.assert_array_equal(scan.voxels, voxels())


def test_slope_and_intercept_give_what_nibabel_gives(tmp_path):
    for dtype in (np.uint8, np.int16, np.int32, np.float32):
        scan = read(tmp_path, patched(content(voxels(dtype)), scl_slope=0.37, scl_inter=-12.5))
        expected = np.asarray(nib.load(tmp_path / "a.nii").dataobj).astype(np.float32)
        np.testing.assert_array_equal(scan.voxels, expected)
    whole = read(tmp_path, patched(content(voxels(np.uint8)), scl_slope=2.0, scl_inter=-1024.0))
    assert whole.voxels.dtype == np.int16
    np.testing.assert_array_equal(whole.voxels, voxels() * 2 - 1024)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_type_byte_order_and_version_holds_the_same_image(tmp_path, dtype, order, kind):
    data = voxels(np.dtype(dtype)) // (2 if dtype == "i1" else 1)
    image = kind(data, AFFINE, dtype=dtype)
    image.set_qform(AFFINE, 1)
    if order == ">":
        image = kind(data.astype(np.dtype(dtype).newbyteorder(">")), AFFINE, image.header.as_byteswapped(">"))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        scan = read_nifti(tmp_path / name)
        assert scan.voxels.dtype == np.int16
        np.testing.assert_array_equal(scan.voxels, data)
        np.testing.assert_array_equal(scan.geometry.affine, AFFINE)


def test_nifti_2_holds_what_nifti_1_holds(tmp_path):
    first, second = read(tmp_path, content()), read(tmp_path, content(kind=nib.Nifti2Image))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.geometry.matches(second.geometry, 1e-6)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.uint16, [0, 40000]), (np.int32, [-40000, 3]), (np.uint32, [0, 1 << 31]), (np.uint64, [0, 1 << 63]),
        (np.int64, [-(1 << 62), 1]), (np.float32, [0.5, 1]), (np.float64, [0, 1e30]),
    ],
)  # fmt: skip
def test_values_beyond_int16_become_float32(tmp_path, dtype, values):
    data = np.resize(np.array(values, dtype), SHAPE)
    image = nib.Nifti1Image(data, AFFINE, dtype=dtype)
    nib.save(image, tmp_path / "a.nii")
    scan = read_nifti(tmp_path / "a.nii")
    assert scan.voxels.dtype == np.float32
    np.testing.assert_array_equal(scan.voxels, data.astype(np.float32))


def test_a_late_voxel_beyond_int16_changes_none_before_it(tmp_path):
    data = np.random.default_rng(0).integers(-32768, 32768, (90, 80, 70)).astype(np.float32)
    data[-1, -1, -1] = 1e6
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    scan = read_nifti(tmp_path / "a.nii.gz")
    assert scan.voxels.dtype == np.float32
    np.testing.assert_array_equal(scan.voxels, data)


def test_float_hu_are_rounded_and_limited(tmp_path):
    data = np.resize(np.array([-1023.6, 0.4, 0.6, 3e5, -3e5], np.float32), SHAPE)
    (tmp_path / "p_ct.nii").write_bytes(content(data))
    scan = read_nifti(tmp_path / "p_ct.nii")
    assert scan.modality == "CT"
    assert scan.voxels.dtype == np.int16
    assert set(np.unique(scan.voxels)) == {-1024, 0, 1, 32767, -32768}


class TestVolumes:
    """4-D files."""

    data = voxels(shape=(*SHAPE, 3))

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    @pytest.mark.parametrize("volume", [0, 1, 2])
    def test_one_is_taken_where_it_is_chosen(self, tmp_path, name, volume):
        nib.save(nib.Nifti1Image(self.data, AFFINE), tmp_path / name)
        scan = read_nifti(tmp_path / name, ImagePolicy(volume=volume))
        np.testing.assert_array_equal(scan.voxels, self.data[..., volume])
        assert scan.facts.volume_label == f"volume {volume}"
        assert scan.facts.flags == ()

    def test_a_number_that_is_not_there_has_a_reason_of_its_own(self, tmp_path):
        error = refused(tmp_path, content(self.data), volume=3)
        assert (error.reason, error.found) == ("VOLUME_INDEX", "volume 3 chosen, but the file has volumes 0 to 2")

    def test_a_3d_file_is_read_whatever_is_chosen(self, tmp_path):
        scan = read(tmp_path, content(), volume=7)
        assert scan.facts.volume_label is None

    @pytest.mark.parametrize("shape", [(6, 5, 4, 1), (6, 5, 4, 1, 1), (6, 5, 4, 1, 1, 1, 1)])
    def test_axes_of_one_voxel_do_not_count(self, tmp_path, shape):
        assert read(tmp_path, content(voxels(shape=shape))).voxels.shape == SHAPE

    @pytest.mark.parametrize("shape", [(6, 5, 4, 1, 3), (6, 5, 4, 2, 3)])
    def test_vectors_are_refused_even_where_a_volume_is_chosen(self, tmp_path, shape):
        error = refused(tmp_path, content(voxels(shape=shape)), volume=0)
        assert (error.reason, error.found) == ("NOT_3D", f"shape {shape}")

    def test_a_cut_in_another_volume_costs_the_file(self, tmp_path):
        whole = content(self.data)
        assert refused(tmp_path, whole[:-1], volume=0).reason == "TRUNCATED"
        assert refused(tmp_path, gzip.compress(whole[:-1]), "a.nii.gz", volume=0).reason == "TRUNCATED"


class TestNonFinite:
    """NaN and infinite voxels."""

    def data(self) -> NDArray[np.float32]:
        data = voxels(np.float32) + np.float32(0.25)
        data[0, 0, 0], data[2, 2, 2], data[5, 4, 3] = np.nan, np.inf, -np.inf
        return data

    def test_they_are_refused_above_the_share_and_counted(self, tmp_path):
        error = refused(tmp_path, content(self.data()), max_non_finite=2.9 / 120)
        assert (error.reason, error.found) == ("NON_FINITE", "3 of 120 voxels are NaN or infinite")

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_up_to_the_share_the_smallest_finite_value_takes_their_place(self, tmp_path, dtype):
        scan = read(tmp_path, content(self.data().astype(dtype)), max_non_finite=3 / 120)
        wrong = ~np.isfinite(self.data())
        assert set(scan.voxels[wrong]) == {1.25}  # 0.25 itself is among the replaced
        np.testing.assert_array_equal(scan.voxels[~wrong], self.data()[~wrong])
        assert scan.facts.flags == ("NON_FINITE_REPLACED",)

    def test_whole_values_stay_int16_and_hu_are_rounded_with_them(self, tmp_path):
        data = self.data()
        scan = read(tmp_path, content(data - np.float32(0.25)), max_non_finite=0.1)
        assert scan.voxels.dtype == np.int16
        assert scan.voxels[0, 0, 0] == 1
        hu = read(tmp_path, content(data - 1024), "p_ct.nii", max_non_finite=0.1)
        assert hu.voxels[0, 0, 0] == -1023

    def test_values_that_float32_cannot_hold_count_as_infinite(self, tmp_path):
        data = voxels(np.float64)
        data[1, 1, 1] = 1e300
        assert refused(tmp_path, content(data)).found == "1 of 120 voxels are NaN or infinite"

    def test_a_volume_of_nothing_else_is_refused_at_any_share(self, tmp_path):
        assert refused(tmp_path, content(np.full(SHAPE, np.nan, np.float32)), max_non_finite=1.0).reason == "NON_FINITE"

    def test_places_are_right_in_volumes_of_many_pieces(self, tmp_path):
        rng = np.random.default_rng(3)
        data = rng.normal(size=(100, 90, 40)).astype(np.float32)
        wrong = rng.random(data.shape) < 0.01
        data[wrong] = np.nan
        scan = read(tmp_path, content(data), max_non_finite=0.02)
        np.testing.assert_array_equal(scan.voxels, np.where(wrong, np.nanmin(data), data))


class TestForms:
    """The sform and the qform that differ."""

    def source(self, shift_mm: float) -> bytes:
        image = nib.Nifti1Image(voxels(), AFFINE)
        moved = AFFINE.copy()
        moved[0, 3] += shift_mm
        image.set_sform(AFFINE, 1)
        image.set_qform(moved, 1)
        return image.to_bytes()

    @pytest.mark.parametrize(("policy", "x"), [("sform", 5.0), ("qform", 5.5)])
    def test_the_policy_decides_and_leaves_a_flag(self, tmp_path, policy, x):
        scan = read(tmp_path, self.source(0.5), form_conflict=policy)
        assert scan.geometry.affine[0, 3] == x
        assert scan.facts.flags == ("FORM_CONFLICT",)

    @pytest.mark.parametrize("policy", ["refuse", "sform", "qform"])
    def test_a_tenth_of_a_voxel_is_no_conflict(self, tmp_path, policy):
        scan = read(tmp_path, self.source(0.14), form_conflict=policy)
        assert scan.geometry.affine[0, 3] == 5.0
        assert scan.facts.flags == ()
        if policy == "refuse":
            assert refused(tmp_path, self.source(0.19)).reason == "SFORM_QFORM_CONFLICT"

    def test_the_chosen_form_serves_where_the_other_is_broken(self, tmp_path):
        broken = patched(content(), quatern_b=3.0)
        assert refused(tmp_path, broken).reason == "SINGULAR_AFFINE"
        np.testing.assert_array_equal(read(tmp_path, broken, form_conflict="sform").geometry.affine, AFFINE)
        assert refused(tmp_path, broken, form_conflict="qform").reason == "SINGULAR_AFFINE"

    @pytest.mark.parametrize("policy", ["sform", "qform"])
    def test_a_form_that_is_not_set_is_never_taken(self, tmp_path, policy):
        other = "qform" if policy == "sform" else "sform"
        scan = read(tmp_path, patched(content(), **{f"{policy}_code": 0}), form_conflict=policy)
        np.testing.assert_allclose(scan.geometry.affine, AFFINE, atol=1e-5)
        assert scan.facts.flags == (), other


def flipped(signs: tuple[int, ...], order: tuple[int, ...]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * signs * (0.7, 1.1, 2.5))[:, order]
    affine[:3, 3] = (-31.0, 17.0, 4.5)
    return affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_all_48_orientations_are_kept_exactly_mirrored_ones_too(tmp_path, order, signs):
    affine = flipped(signs, order).astype(np.float32).astype(np.float64)
    scan = read(tmp_path, content(affine=affine))
    np.testing.assert_array_equal(scan.geometry.affine, affine)
    np.testing.assert_array_equal(scan.voxels, voxels())


class TestGzip:
    """What is compressed is told by content, and verified to its end."""

    def test_the_name_does_not_decide(self, tmp_path):
        np.testing.assert_array_equal(read(tmp_path, content(), "plain.nii.gz").voxels, voxels())
        np.testing.assert_array_equal(read(tmp_path, gzip.compress(content()), "packed.nii").voxels, voxels())

    @pytest.mark.parametrize("cut", [0, 1, 100, 348, 352, 500])
    def test_members_one_after_another_are_one_stream(self, tmp_path, cut):
        whole = content()
        packed = gzip.compress(whole[:cut]) + bytes(37) + gzip.compress(whole[cut:]) + bytes(512)
        scan = read(tmp_path, packed, "a.nii.gz")
        np.testing.assert_array_equal(scan.voxels, voxels())
        assert scan.facts.flags == ()

    @pytest.mark.parametrize("garbage", [b"garbage", b"\x1f", b"\0\0\x1fx", b"<html>" * 9999])
    def test_garbage_behind_the_stream_is_flagged(self, tmp_path, garbage):
        scan = read(tmp_path, gzip.compress(content()) + garbage, "a.nii.gz")
        np.testing.assert_array_equal(scan.voxels, voxels())
        assert scan.facts.flags == ("TRAILING_BYTES",)

    def test_bytes_behind_the_voxels_are_flagged_within_the_slack_and_refused_beyond(self, tmp_path):
        assert read(tmp_path, content() + b"x" * 999).facts.flags == ("TRAILING_BYTES",)
        assert read(tmp_path, gzip.compress(content() + b"x" * 999), "a.nii.gz").facts.flags == ("TRAILING_BYTES",)
        error = refused(tmp_path, gzip.compress(content() + bytes(2 << 20)), "a.nii.gz")
        assert error.reason == "EXPANSION_LIMIT"

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_a_cut_anywhere_is_noticed(self, tmp_path, name):
        whole = content() if name == "a.nii" else gzip.compress(content())
        for length in range(0, len(whole), 7):
            assert refused(tmp_path, whole[:length], name).reason == "TRUNCATED", length

    def test_one_wrong_bit_of_a_stream_is_noticed(self, tmp_path):
        data = np.random.default_rng(1).integers(0, 4000, (20, 20, 20)).astype(np.int16)
        packed = gzip.compress(content(data))
        for position in range(12, len(packed), 997):
            wrong = bytearray(packed)
            wrong[position] ^= 4
            assert refused(tmp_path, bytes(wrong), "a.nii.gz").reason in {
                "TRUNCATED", "UNREADABLE", "BAD_VALUE", "EXPANSION_LIMIT", "UNSUPPORTED_FORMAT", "NOT_3D",
            }, position  # fmt: skip


def bomb(path: Path, size: int, header: bytes) -> None:
    """A gzip file that inflates to a header and ``size`` zeros: one deflated block, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(32 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + block * (size // (32 << 20)) + packer.flush())


@pytest.mark.parametrize("dims", [(6, 5, 4), (1500, 1100, 1050)], ids=["claims 592 bytes", "claims 3.3 GB"])
def test_a_bomb_of_3_gb_costs_seconds_and_no_memory(tmp_path, dims):
    path = tmp_path / "a.nii.gz"
    bomb(path, 3_300_000_000, patched(content()[:352], dim=(3, *dims, 1, 1, 1, 1)))
    assert path.stat().st_size < 4_000_000
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.scan_io import read_nifti\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_nifti(Path(sys.argv[1]))\n"
        "except Exception as error: print(error.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    started = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    reason, grown_kib = answer.stdout.split()
    assert reason == "EXPANSION_LIMIT"
    assert int(grown_kib) < 32 << 10
    assert time.monotonic() - started < 20
    (outcome,) = parse_all(read_nifti, [path], Limits(timeout_s=10, memory_mb=1400))
    assert outcome.refusal is not None
    assert outcome.refusal.reason == "EXPANSION_LIMIT"


def test_a_sparse_mask_that_compresses_a_thousandfold_is_read(tmp_path):
    data = np.zeros((256, 256, 200), np.uint8)
    data[100:104, 100:104, 90:92] = 1
    packed = gzip.compress(content(data), 9)
    assert len(content(data)) > 900 * len(packed)
    np.testing.assert_array_equal(read(tmp_path, packed, "a.nii.gz").voxels, data)


def test_memory_is_that_of_the_result(tmp_path):
    """A child with the limit of the settings reads a float64 file that is larger than what is left to it."""
    shape = (512, 512, 330)  # 692 MB as float64, 173 MB as int16
    header = nib.Nifti1Image(np.zeros((1, 1, 1)), AFFINE).to_bytes()[:352]
    with (tmp_path / "a.nii").open("wb") as file:
        file.write(patched(header, dim=(3, *shape, 1, 1, 1, 1)))
        file.truncate(352 + 8 * math.prod(shape))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.scan_io import read_nifti\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "scan = read_nifti(Path(sys.argv[1]))\n"
        "print(scan.voxels.nbytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.nii")], capture_output=True, text=True, check=True
    )
    result, grown = map(int, answer.stdout.split())
    assert result == 2 * math.prod(shape)
    assert grown < 1.1 * result + (16 << 20), before
