import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Geometry
from pipeline.scan_io import is_nifti, read_nifti, write_nifti

SHAPE = (6, 5, 4)


def tilted(angle: float = 12.0, spacing: tuple[float, float, float] = (0.8, 1.1, 3.0)) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (angle, -5, 3), degrees=True).as_matrix() * spacing
    affine[:3, 3] = (-30.0, 20.0, 7.0)
    return affine


def voxels() -> NDArray[np.int16]:
    return np.arange(120, dtype=np.int16).reshape(SHAPE) - 60


def save(path: Path, data: NDArray[Any], affine: NDArray[np.float64], **codes: int) -> nib.Nifti1Image:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=codes.get("sform", 1))
    image.set_qform(affine, code=codes.get("qform", 1))
    nib.save(image, path)
    return image


def refusal(path: Path) -> QuarantineError:
    with pytest.raises(QuarantineError) as caught:
        read_nifti(path)
    return caught.value


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_comes_back_exactly(tmp_path: Path, name: str) -> None:
    write_nifti(tmp_path / name, voxels(), tilted(), np.int16)
    scan = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(scan.voxels, voxels())
    assert scan.geometry.matches(Geometry(SHAPE, tilted()), 1e-5)
    assert scan.modality is None


def test_simpleitk_reads_the_same_grid(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", voxels(), tilted(), np.int16)
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    right, anterior, superior = Geometry(SHAPE, tilted()).to_world((5, 2, 3))
    assert image[image.TransformPhysicalPointToIndex((-right, -anterior, superior))] == voxels()[5, 2, 3]


def test_the_header_is_fresh_and_bytes_repeat(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", voxels(), tilted(), np.int16)
    write_nifti(tmp_path / "b.nii.gz", voxels(), tilted(), np.int16)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    assert bytes(header["descrip"].tobytes()).strip(b"\0") == b""
    assert not header.extensions


def test_a_sheared_affine_is_kept_in_the_sform_alone(tmp_path: Path) -> None:
    affine = tilted()
    affine[:3, 2] += affine[:3, 0] * 1.5
    write_nifti(tmp_path / "a.nii", voxels(), affine, np.int16)
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").geometry.affine, affine, atol=1e-5)
    assert int(nib.load(tmp_path / "a.nii").header["qform_code"]) == 0


def test_values_an_integer_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    for values in (np.full(SHAPE, 0.5), np.full(SHAPE, 40000), np.full(SHAPE, np.nan)):
        with pytest.raises(InputError, match="hold the voxels exactly"):
            write_nifti(tmp_path / "a.nii", values, tilted(), np.int16)
    with pytest.raises(InputError, match="named"):
        write_nifti(tmp_path / "a.img", voxels(), tilted(), np.int16)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001), ("unknown", 1.0)])
def test_units_are_converted_to_mm(tmp_path: Path, unit: str, factor: float) -> None:
    affine = np.diag([1 / factor, 1 / factor, 1 / factor, 1.0]) @ tilted(7.0, (2.0, 2.0, 2.0))
    image = nib.Nifti1Image(voxels(), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        read_nifti(tmp_path / "a.nii").geometry.affine, tilted(7.0, (2.0, 2.0, 2.0)), rtol=1e-6, atol=1e-5
    )


def test_conflicting_forms_are_refused_with_the_distance(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels(), tilted())
    image.set_sform(tilted(), code=1)
    moved = tilted()
    moved[0, 3] += 2.0
    image.set_qform(moved, code=1)
    nib.save(image, tmp_path / "a.nii")
    error = refusal(tmp_path / "a.nii")
    assert error.reason == "SFORM_QFORM_CONFLICT"
    assert "2.000 mm" in error.found


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.01, 0.02, 0.1, 1.0])
def test_quaternion_rounding_near_180_degrees_is_no_conflict(tmp_path: Path, angle: float) -> None:
    shape = (512, 512, 3)
    affine = tilted(0.0)
    affine[:3, :3] = Rotation.from_euler("zx", (180, angle), degrees=True).as_matrix() * (0.5, 0.5, 1.0)
    save(tmp_path / "a.nii", np.zeros(shape, dtype=np.uint8), affine)
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").geometry.affine, affine, atol=1e-5)


def test_the_qform_serves_where_no_sform_is_set_and_none_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "q.nii", voxels(), tilted(), sform=0)
    np.testing.assert_allclose(read_nifti(tmp_path / "q.nii").geometry.affine, tilted(), atol=1e-4)
    save(tmp_path / "n.nii", voxels(), tilted(), sform=0, qform=0)
    assert refusal(tmp_path / "n.nii").reason == "NO_ORIENTATION"


def test_odd_content_is_refused_with_its_reason(tmp_path: Path) -> None:
    save(tmp_path / "4d.nii", np.zeros((3, 3, 3, 2), dtype=np.int16), tilted())
    save(tmp_path / "one.nii", np.zeros((3, 3, 3, 1), dtype=np.int16), tilted())
    save(tmp_path / "complex.nii", np.zeros((3, 3, 3), dtype=np.complex64), tilted())
    values = np.zeros((3, 3, 3), dtype=np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
    save(tmp_path / "nan.nii", values, tilted())
    image = nib.Nifti1Image(voxels(), None)
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "zero.nii")
    assert refusal(tmp_path / "4d.nii").reason == "NOT_3D"
    assert read_nifti(tmp_path / "one.nii").voxels.shape == (3, 3, 3)
    assert refusal(tmp_path / "complex.nii").reason == "UNSUPPORTED_DTYPE"
    assert refusal(tmp_path / "nan.nii").found == "2 of 27 voxels are NaN or infinite"
    assert refusal(tmp_path / "zero.nii").reason == "SINGULAR_AFFINE"


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_nifti(tmp_path / "a.nii.gz", rng.integers(0, 999, (20, 20, 20)), tilted(), np.int16)
    content = (tmp_path / "a.nii.gz").read_bytes()
    for length in (0, 5, 40, 300, len(content) // 2, len(content) - 4):
        (tmp_path / "cut.nii.gz").write_bytes(content[:length])
        assert refusal(tmp_path / "cut.nii.gz").reason in {"TRUNCATED", "UNREADABLE"}
    (tmp_path / "noise.nii").write_bytes(rng.bytes(5000))
    assert refusal(tmp_path / "noise.nii").reason in {"TRUNCATED", "UNREADABLE"}


def test_scaled_floats_stay_floats_and_whole_values_become_int16(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels(), tilted())
    image.header.set_slope_inter(0.25, 1.0)
    nib.save(image, tmp_path / "a.nii")
    stored = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").voxels, stored.astype(np.float32))
    save(tmp_path / "b.nii", voxels().astype(np.float64), tilted())
    assert read_nifti(tmp_path / "b.nii").voxels.dtype == np.int16


def test_modality_comes_from_the_sidecar_else_from_the_suffix(tmp_path: Path) -> None:
    for stem in ("sub-01_T1w", "sub-01_ct", "sub-01_FLAIR", "scan"):
        save(tmp_path / f"{stem}.nii.gz", voxels() + 0.4, tilted())
    assert [read_nifti(tmp_path / f"{stem}.nii.gz").modality for stem in ("sub-01_T1w", "sub-01_ct", "scan")] == [
        "MR",
        "CT",
        None,
    ]
    assert read_nifti(tmp_path / "sub-01_ct.nii.gz").voxels.dtype == np.int16
    assert read_nifti(tmp_path / "sub-01_FLAIR.nii.gz").facts.sequence_name == "FLAIR"
    fields = {"Modality": "MR", "BodyPartExamined": "HEAD", "PatientPosition": "HFS", "ProtocolName": "ax T2 tse"}
    (tmp_path / "scan.json").write_text(json.dumps(fields))
    scan = read_nifti(tmp_path / "scan.nii.gz")
    assert scan.modality == "MR"
    assert (scan.facts.body_part, scan.facts.patient_position, scan.facts.sequence_name) == ("HEAD", "HFS", "T2")


def test_a_broken_sidecar_or_foreign_modality_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", voxels(), tilted())
    for text in ("{", "[1]", "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        assert refusal(tmp_path / "a.nii").reason == "BAD_SIDECAR"
    (tmp_path / "a.json").write_text('{"Modality": "PT"}')
    assert refusal(tmp_path / "a.nii").reason == "UNSUPPORTED_MODALITY"


def test_nifti_names_are_known_by_their_ending() -> None:
    assert [is_nifti(Path(name)) for name in ("a.nii", "a.NII.GZ", "a.gz", "nii")] == [True, True, False, False]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_written_bytes_are_those_that_nibabel_writes(tmp_path, dtype, order):
    voxels = np.asarray(np.random.default_rng(0).integers(0, 100, (5, 6, 7)), dtype=dtype, order=order)
    affine = np.array([[-1.0, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])
    write_nifti(tmp_path / "a.nii", voxels, affine, dtype)
    image = nib.Nifti1Image(voxels, None)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    assert (tmp_path / "a.nii").read_bytes() == image.to_bytes()
