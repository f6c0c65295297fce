"""MetaImage and NRRD: equal to NIfTI twins, refused where the header asks for what it should not."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import QuarantineError
from pipeline.safe_parse import Limits, parse_all
from pipeline.scan_io import ImagePolicy, is_metaimage, read_image, read_metaimage, read_nifti
from pipeline.scan_io.text_headers import read_claims

SHAPE = (7, 6, 5)
ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")


def voxels(dtype: Any = np.int16) -> NDArray[Any]:
    return (np.arange(210).reshape(SHAPE) % 119).astype(dtype)


def oblique(mirrored: bool = False) -> NDArray[np.float64]:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (25, -11, 140), degrees=True).as_matrix()
    affine[:3, :3] = turn * (0.7, -1.3 if mirrored else 1.3, 2.9)
    affine[:3, 3] = (-31.5, 8.25, 100.0)
    return affine


def itk_image(data: NDArray[Any], affine: NDArray[np.float64]) -> SimpleITK.Image:
    """The image as ITK holds it, from the LPS+ form of a RAS+ affine."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def written(tmp_path: Path, ending: str, compressed: bool = False, data: NDArray[Any] | None = None) -> Path:
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(itk_image(voxels() if data is None else data, oblique()), str(path), compressed)
    return path


def refusal(path: Path) -> QuarantineError:
    with pytest.raises(QuarantineError) as caught:
        read_metaimage(path)
    return caught.value


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_oblique_image_equals_its_nifti_twin(tmp_path, ending, compressed, mirrored):
    affine = oblique(mirrored)
    SimpleITK.WriteImage(itk_image(voxels(), affine), str(tmp_path / f"a{ending}"), compressed)
    twin = nib.Nifti1Image(voxels(), affine)
    nib.save(twin, tmp_path / "twin.nii")
    scan, expected = read_metaimage(tmp_path / f"a{ending}"), read_nifti(tmp_path / "twin.nii")
    np.testing.assert_array_equal(scan.voxels, expected.voxels)
    assert scan.voxels.dtype == expected.voxels.dtype
    np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-6)
    assert scan.geometry.matches(expected.geometry, 1e-4)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_of_voxel_is_read(tmp_path, ending, dtype):
    scan = read_metaimage(written(tmp_path, ending, data=voxels(dtype)))
    assert scan.voxels.dtype == np.int16
    np.testing.assert_array_equal(scan.voxels, voxels())


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_header_claims_what_itk_wrote(tmp_path, ending):
    claims = read_claims(written(tmp_path, ending, compressed=False))
    assert (claims.shape, claims.voxel_bytes, claims.window) == (SHAPE, 2, None)
    with claims.data.open("rb") as file:
        file.seek(claims.offset)
        assert file.read() == voxels().tobytes(order="F")


def test_modality_is_told_by_the_json_beside_it_its_suffix_or_its_place(tmp_path):
    path = written(tmp_path, ".mha", data=voxels(np.float32) + np.float32(0.4))
    assert read_metaimage(path).modality is None
    assert read_metaimage(path, modality="CT").voxels.dtype == np.int16
    (tmp_path / "a.json").write_text('{"Modality": "MR", "ProtocolName": "ax T2", "BodyPartExamined": "HEAD"}')
    scan = read_image(path)
    assert (scan.modality, scan.facts.sequence_name, scan.facts.body_part) == ("MR", "T2", "HEAD")
    with pytest.raises(QuarantineError, match="MODALITY_CONFLICT"):
        read_image(path, modality="CT")
    assert read_metaimage(path.rename(tmp_path / "p_ct.mha")).modality == "CT"


def test_a_ras_nrrd_lies_where_its_lps_twin_lies(tmp_path):
    affine = oblique()
    lines = ["NRRD0005", "type: int16", "dimension: 3", "sizes: 7 6 5", "encoding: raw", "endian: little"]
    for space, signs in (("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("LPS", (-1, -1, 1))):
        columns = [affine[:3, axis] * signs for axis in (0, 1, 2, 3)]
        vectors = [f"({','.join(map(repr, map(float, column)))})" for column in columns]
        place = [f"space: {space}", f"space directions: {' '.join(vectors[:3])}", f"space origin: {vectors[3]}"]
        header = "\n".join([*lines, *place, "# note", "key:=value", "", ""]).encode()
        (tmp_path / "a.nrrd").write_bytes(header + voxels().tobytes(order="F"))
        scan = read_metaimage(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(scan.voxels, voxels())
        np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-9)


def test_bad_voxels_follow_the_policy(tmp_path):
    data = voxels(np.float32)
    data[0, 0, 0] = np.nan
    path = written(tmp_path, ".nrrd", data=data)
    assert refusal(path).found == "1 of 210 voxels are NaN or infinite"
    scan = read_metaimage(path, ImagePolicy(max_non_finite=0.01))
    assert scan.voxels[0, 0, 0] == 0
    assert scan.facts.flags == ("NON_FINITE_REPLACED",)


META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3", "ElementSpacing": "1 1 2",
    "DimSize": "7 6 5", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "7 6 5",
    "space directions": "(1,0,0) (0,1,0) (0,0,2)", "encoding": "raw", "endian": "little", "space origin": "(1,2,3)",
}  # fmt: skip


def meta(tmp_path: Path, data: bytes | None = None, **fields: str | None) -> Path:
    last = {"ElementDataFile": META["ElementDataFile"]} | fields
    kept = {name: value for name, value in (META | fields | last).items() if value is not None}
    kept["ElementDataFile"] = kept.pop("ElementDataFile")
    text = "".join(f"{name} = {value}\n" for name, value in kept.items())
    (tmp_path / "a.mha").write_bytes(text.encode() + (voxels().tobytes(order="F") if data is None else data))
    return tmp_path / "a.mha"


def nrrd(tmp_path: Path, data: bytes | None = None, **fields: str | None) -> Path:
    named = {name.replace("_", " "): value for name, value in fields.items()}
    text = "NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in (NRRD | named).items() if v is not None) + "\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + (voxels().tobytes(order="F") if data is None else data))
    return tmp_path / "a.nrrd"


def test_the_hand_written_headers_are_sound(tmp_path):
    for path in (meta(tmp_path), nrrd(tmp_path)):
        scan = read_metaimage(path)
        np.testing.assert_array_equal(scan.voxels, voxels())
        np.testing.assert_array_equal(
            scan.geometry.affine, [[-1, 0, 0, -1], [0, -1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]]
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ElementDataFile": "../a.raw"}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": "/etc/passwd"}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": "sub/a.raw"}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": "..\\a.raw"}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": ".."}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": ""}, "OUTSIDE_REFERENCE"),
        ({"ElementDataFile": "LIST"}, "UNSUPPORTED_FORMAT"),
        ({"ElementDataFile": "slice%03d.raw 1 5 1"}, "UNSUPPORTED_FORMAT"),
        ({"ElementDataFile": "gone.raw"}, "MISSING_REFERENCE"),
        ({"ElementDataFile": "link.raw"}, "MISSING_REFERENCE"),
        ({"DimSize": "7 6"}, "BAD_VALUE"),
        ({"DimSize": "7 6", "NDims": "2"}, "NOT_3D"),
        ({"DimSize": "7 6 5 2", "NDims": "4"}, "NOT_3D"),
        ({"DimSize": "7 6 -5"}, "NOT_3D"),
        ({"DimSize": "7 6 5e9"}, "BAD_VALUE"),
        ({"DimSize": "70 60 50"}, "TRUNCATED"),
        ({"DimSize": "99999 99999 99999"}, "TRUNCATED"),
        ({"DimSize": None}, "BAD_VALUE"),
        ({"ElementType": "MET_FLOAT_ARRAY"}, "UNSUPPORTED_DTYPE"),
        ({"ElementType": None}, "UNSUPPORTED_DTYPE"),
        ({"ElementNumberOfChannels": "3"}, "NOT_3D"),
        ({"BinaryData": "False"}, "UNSUPPORTED_FORMAT"),
        ({"TransformMatrix": None}, "NO_ORIENTATION"),
        ({"Offset": None}, "NO_ORIENTATION"),
        ({"ElementSpacing": None}, "NO_ORIENTATION"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0"}, "BAD_VALUE"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 x"}, "BAD_VALUE"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "SINGULAR_AFFINE"),
        ({"Offset": "1 2 nan"}, "SINGULAR_AFFINE"),
        ({"ElementSpacing": "1 0 1"}, "SINGULAR_AFFINE"),
        ({"ElementSpacing": "1000 1000 3000"}, "IMPLAUSIBLE_SPACING"),
        ({"CompressedData": "True"}, "TRUNCATED"),
        ({"Comment": "x\nDimSize = 7 6 4"}, "BAD_VALUE"),
    ],
)
def test_a_metaimage_header_that_cannot_be_trusted_has_its_reason(tmp_path, fields, reason):
    (tmp_path / "secret").write_bytes(voxels().tobytes())
    (tmp_path / "link.raw").symlink_to(tmp_path / "secret")
    assert refusal(meta(tmp_path, **fields)).reason == reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data_file": "../a.raw"}, "OUTSIDE_REFERENCE"),
        ({"data_file": "/etc/passwd"}, "OUTSIDE_REFERENCE"),
        ({"data_file": "LIST 3"}, "UNSUPPORTED_FORMAT"),
        ({"data_file": "s%03d.raw 1 5 1"}, "UNSUPPORTED_FORMAT"),
        ({"data_file": "gone.raw"}, "MISSING_REFERENCE"),
        ({"encoding": "ascii"}, "UNSUPPORTED_FORMAT"),
        ({"encoding": "bzip2"}, "UNSUPPORTED_FORMAT"),
        ({"encoding": None}, "UNSUPPORTED_FORMAT"),
        ({"encoding": "gzip"}, "TRUNCATED"),
        ({"line_skip": "2"}, "UNSUPPORTED_FORMAT"),
        ({"byte_skip": "4"}, "TRUNCATED"),
        ({"dimension": "4", "sizes": "3 7 6 5", "space_directions": "none (1,0,0) (0,1,0) (0,0,2)"}, "NOT_3D"),
        ({"sizes": "7 6 50"}, "TRUNCATED"),
        ({"type": "block"}, "UNSUPPORTED_DTYPE"),
        ({"space": None}, "NO_ORIENTATION"),
        ({"space": "scanner-xyz"}, "NO_ORIENTATION"),
        ({"space_directions": None}, "NO_ORIENTATION"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,2)"}, "SINGULAR_AFFINE"),
        ({"space_directions": "(1,0,0) (0,1) (0,0,2)"}, "BAD_VALUE"),
        ({"space_directions": "(900,0,0) (0,900,0) (0,0,2)"}, "IMPLAUSIBLE_SPACING"),
        ({"space_units": '"m" "m" "m"'}, "BAD_VALUE"),
    ],
)
def test_an_nrrd_header_that_cannot_be_trusted_has_its_reason(tmp_path, fields, reason):
    assert refusal(nrrd(tmp_path, **fields)).reason == reason


def test_nothing_but_a_header_is_unreadable(tmp_path):
    for number, content in enumerate((b"", b"NRRD0004\n", b"ObjectType = Image\n", bytes(5000))):
        path = tmp_path / f"{number}.mha"
        path.write_bytes(content)
        assert refusal(path).reason in {"UNREADABLE", "BAD_VALUE", "UNSUPPORTED_FORMAT"}


@pytest.mark.parametrize("claimed", ["7 6 5", "1500 1100 1050"])
def test_streams_that_inflate_beyond_reason_are_refused(tmp_path, claimed):
    packer = zlib.compressobj(9)
    start = packer.compress(voxels().tobytes(order="F")) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(32 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path = meta(tmp_path, start + block * 100 + packer.flush(), DimSize=claimed, CompressedData="True")
    (outcome,) = parse_all(read_metaimage, [path], Limits(timeout_s=10, memory_mb=1400))
    assert outcome.refusal is not None
    assert outcome.refusal.reason == "EXPANSION_LIMIT"
    gz = gzip.compress(voxels().tobytes(order="F") + bytes(3 << 20))
    assert refusal(nrrd(tmp_path, gz, encoding="gzip")).reason == "EXPANSION_LIMIT"


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_a_cut_stream_is_noticed(tmp_path, ending):
    whole = written(tmp_path, ending, compressed=True).read_bytes()
    for length in (len(whole) - 1, len(whole) - 20, len(whole) - 60):
        (tmp_path / f"cut{ending}").write_bytes(whole[:length])
        assert refusal(tmp_path / f"cut{ending}").reason == "TRUNCATED"


def test_names_are_known_by_their_ending_and_others_refused(tmp_path):
    assert [is_metaimage(Path(name)) for name in ("a.MHA", "a.nhdr", "a.nii", "mha")] == [True, True, False, False]
    with pytest.raises(QuarantineError, match="UNSUPPORTED_FORMAT"):
        read_image(tmp_path / "a.mgz")
