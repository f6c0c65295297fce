import nibabel as nib
import numpy as np
import polars as pl
import pytest

from pipeline.errors import WorkspaceError
from pipeline.prepared_set import (
    VOLUME_SCHEMA,
    VolumeSetWriter,
    from_slices,
    read_image_set,
    read_volume_set,
    to_slices,
    write_image_set,
)

SHAPES = {"a": (2, 5, 7), "b": (1, 3, 3), "c": (4, 9, 2)}


def labelled() -> np.ndarray:
    """A canonical RAS+ volume that says where it is: 100 on the right, 10 at the front, height in ones."""
    volume = np.zeros((4, 6, 3), np.int16)
    volume[-1, :, :] += 100  # i grows to the patient's right
    volume[:, -1, :] += 10  # j grows to anterior
    volume += np.arange(3, dtype=np.int16)  # k grows to superior
    return volume


def test_display_slices_are_radiological():
    slices = to_slices(labelled())
    assert slices.shape == (3, 6, 4)
    assert np.all(slices[:, 2, 0] // 100 == 1), "column 0 is the patient's right"
    assert np.all(slices[:, 2, 1:] // 100 == 0)
    assert np.all(slices[:, 0, 2] % 100 // 10 == 1), "row 0 is anterior"
    assert np.all(slices[:, 1:, 2] % 100 // 10 == 0)
    assert slices[:, 2, 2].tolist() == [0, 1, 2], "slices go superior-ward"


@pytest.mark.parametrize("shape", [(4, 6, 3), (1, 1, 1), (7, 2, 5)])
def test_from_slices_undoes_to_slices(shape):
    volume = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    assert np.array_equal(from_slices(to_slices(volume)), volume)
    assert np.array_equal(to_slices(from_slices(volume)), volume)


def test_display_slices_agree_with_the_orientation_codes_of_nibabel():
    volume = np.random.default_rng(1).random((4, 6, 3))
    lps = nib.as_closest_canonical(nib.Nifti1Image(volume, np.eye(4))).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("LPS"))
    )
    # In LPS order a column index grows to the left and a row index to posterior: what a screen shows.
    assert np.array_equal(to_slices(volume), np.asarray(lps.dataobj).transpose(2, 1, 0))


def row(modality: str, name: str, **changes: object) -> dict[str, object]:
    plain = {"modality": modality, "subject_id": name, "series_id": f"{modality}-{name}", "split": "train"}
    rest = {"pair_volume": -1, "own_grid": True, "affine": None, "mr_low": None, "mr_high": None}
    return plain | rest | changes


def written(folder):
    """Three MR of different sizes, a CT on the grid of the second, one CT of its own; voxels by series."""
    rng = np.random.default_rng(2)
    writer = VolumeSetWriter(folder)
    voxels, masks, numbers = {}, {}, {}
    plan = [*(("MR", name, shape) for name, shape in SHAPES.items()), ("CT", "b", SHAPES["b"]), ("CT", "z", (3, 4, 5))]
    for modality, name, shape in plan:
        values = rng.integers(-1024, 3071, shape).astype(np.int16)
        mask = rng.integers(0, 2, shape).astype(np.uint8)
        affine = np.diag([1.0, 2.0, 3.0, 1.0]).ravel().tolist() if name == "b" else None
        extra = {"affine": affine, "split": "test" if name == "c" else "train"}
        key = f"{modality}-{name}"
        voxels[key], masks[key] = values, mask
        numbers[key] = writer.add(row(modality, name, **extra), values, mask)
    writer.link(numbers["MR-b"], numbers["CT-b"])
    writer.close({"unit": "HU", "spacing_mm": [1.0, 2.0, 3.0]})
    return voxels, masks, numbers


def test_ragged_volumes_come_back_voxel_by_voxel(tmp_path):
    voxels, masks, numbers = written(tmp_path / "set")
    opened = read_volume_set(tmp_path / "set")
    for series, number in numbers.items():
        found = opened.row(number)
        assert found["series_id"] == series
        assert np.array_equal(opened.voxels(found), voxels[series])
        assert np.array_equal(opened.mask(found), masks[series])
    assert opened.facts == {"unit": "HU", "spacing_mm": [1.0, 2.0, 3.0]}
    assert not opened.voxels(opened.row(0)).flags.writeable


def test_links_name_the_partner_both_ways(tmp_path):
    _, _, numbers = written(tmp_path / "set")
    opened = read_volume_set(tmp_path / "set")
    assert opened.row(numbers["MR-b"])["pair_volume"] == numbers["CT-b"]
    assert opened.row(numbers["CT-b"])["pair_volume"] == numbers["MR-b"]
    assert opened.row(numbers["MR-a"])["pair_volume"] == -1
    assert np.array_equal(np.reshape(opened.row(numbers["MR-b"])["affine"], (4, 4)), np.diag([1.0, 2.0, 3.0, 1.0]))


def test_volumes_are_chosen_by_modality_and_split(tmp_path):
    written(tmp_path / "set")
    opened = read_volume_set(tmp_path / "set")
    assert [found["series_id"] for found in opened.volumes("MR", ["train"])] == ["MR-a", "MR-b"]
    assert [found["series_id"] for found in opened.volumes("MR", ["test", "train"])] == ["MR-a", "MR-b", "MR-c"]
    assert [found["series_id"] for found in opened.volumes("CT", ["train"])] == ["CT-b", "CT-z"]
    assert opened.volumes("CT", ["validation"]) == []


def test_a_set_without_one_modality_or_without_anything_opens(tmp_path):
    writer = VolumeSetWriter(tmp_path / "mr")
    writer.add(row("MR", "a"), np.ones((1, 2, 2), np.int16), np.ones((1, 2, 2), np.uint8))
    writer.close({})
    assert len(read_volume_set(tmp_path / "mr").arrays["ct"]) == 0
    VolumeSetWriter(tmp_path / "none").close({})
    opened = read_volume_set(tmp_path / "none")
    assert opened.table.height == 0
    assert opened.table.columns == list(VOLUME_SCHEMA)


def test_writing_leaves_no_raw_streams(tmp_path):
    written(tmp_path / "set")
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == ["ct.npy", "mask.npy", "mr.npy", "set.json", "volumes.parquet"]


@pytest.mark.parametrize("name", ["mr", "ct", "mask"])
def test_arrays_that_lack_voxels_are_refused(tmp_path, name):
    written(tmp_path / "set")
    path = tmp_path / "set" / f"{name}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(WorkspaceError, match="prepared set"):
        read_volume_set(tmp_path / "set")


def image_table(count: int) -> pl.DataFrame:
    classes = ["cyst", "ring", "cyst"]
    splits = ["train", "test", "validation"]
    return pl.DataFrame(
        [
            {
                "image": number,
                "subject_id": f"s{number}",
                "series_id": f"m{number}",
                "lesion_id": f"l{number}",
                "lesion_class": classes[number % 3],
                "split": splits[number % 3],
                "slice_index": number,
            }
            for number in range(count)
        ]
    )


def test_image_sets_come_back_and_know_classes_and_splits(tmp_path):
    images = np.random.default_rng(3).integers(-16384, 16385, (7, 1, 8, 8)).astype(np.int16)
    write_image_set(tmp_path / "set", images, image_table(7), {"classes": ["ring", "cyst"]})
    opened = read_image_set(tmp_path / "set")
    assert np.array_equal(opened.images, images)
    assert opened.classes == ["ring", "cyst"]
    assert opened.rows("train").tolist() == [0, 3, 6]
    assert opened.rows("test").tolist() == [1, 4]
    assert opened.class_indices().tolist() == [1, 0, 1, 1, 0, 1, 1], "the index follows the order of the facts"


def test_an_image_set_whose_table_lacks_a_row_is_refused(tmp_path):
    write_image_set(tmp_path / "set", np.zeros((4, 1, 8, 8), np.int16), image_table(3), {"classes": ["cyst", "ring"]})
    with pytest.raises(WorkspaceError, match="4 images, 3 table rows"):
        read_image_set(tmp_path / "set")
