import itertools

import numpy as np
import polars as pl
import pytest

from pipeline.catalog import write_catalog
from pipeline.errors import InputError
from pipeline.prepare.lesions import prepare_lesion_set
from pipeline.prepare.stage import prepare_lesions
from pipeline.prepared_set import read_image_set
from pipeline.records import silent
from pipeline.settings import PrepareSettings, RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

SHAPE = (36, 40, 8)
SPACING = (4.0, 4.0, 6.0)
SMALL = {"size_px": 32, "pixel_mm": 4.0, "slices_per_lesion": 2, "min_section_px": 4, "min_images_per_class": 1}


def settings(**lesions):
    return PrepareSettings.model_validate({"lesions": SMALL | lesions})


def affine_of(spacing=SPACING):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-70.0, -80.0, -20.0)
    return affine


def head(seed=0):
    """An MR of an elliptic body with a gradient, and two cubic lesions: 1 right in front, 2 left behind."""
    i, j, k = np.indices(SHAPE)
    body = ((i - 18) / 14) ** 2 + ((j - 20) / 16) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    voxels = np.where(body, 400 + 5 * j + 3 * i + 10 * k + noise, 0).astype(np.int16)
    mask = np.zeros(SHAPE, np.int16)
    mask[22:26, 24:28, 2:6] = 1
    mask[10:13, 10:14, 1:5] = 2
    voxels[mask == 1] = 700
    voxels[mask == 2] = 150
    return voxels, mask


def orientations(voxels, mask, affine):
    """The same volume stored in each of the 48 orders of axes and directions."""
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            new = affine[:, [*axes, 3]].copy()
            stored = [array.transpose(axes) for array in (voxels, mask)]
            for axis, backwards in enumerate(flips):
                if backwards:
                    new[:, 3] += new[:, axis] * (stored[0].shape[axis] - 1)
                    new[:, axis] *= -1
            turned = [np.flip(array, [axis for axis in range(3) if flips[axis]]) for array in stored]
            yield turned[0], turned[1], new


def prepared(maker, splits, tmp_path, **lesions):
    facts = prepare_lesion_set(maker.write(), splits, settings(**lesions), tmp_path / "out", silent)
    return facts, read_image_set(tmp_path / "out")


def two_class_cohort(maker, subjects=4):
    """Every subject has a bright lesion of class ring and a dark one of class cyst, in one mask file."""
    for number in range(subjects):
        voxels, mask = head(number)
        series = maker.volume(f"s{number}", "MR", voxels, affine_of())
        maker.lesion(series, "ring", mask, affine_of(), 1)
        maker.lesion(series, "cyst", mask, affine_of(), 2)
    return {f"s{number}": ("train", "test", "validation", "train")[number % 4] for number in range(subjects)}


def test_lesions_of_one_mask_are_told_apart_by_their_value(maker, tmp_path):
    splits = two_class_cohort(maker)
    facts, found = prepared(maker, splits, tmp_path)
    assert facts["classes"] == found.classes == ["cyst", "ring"]
    middle = found.images[:, 0, 15:17, 15:17].mean(axis=(1, 2)) / 16384
    ring = np.array(found.table["lesion_class"]) == "ring"
    assert np.all(middle[ring] > 0.5)
    assert np.all(middle[~ring] < -0.5)
    assert set(found.table.filter(pl.col("lesion_class") == "ring")["slice_index"]) == {3, 5}
    assert set(found.table.filter(pl.col("lesion_class") == "cyst")["slice_index"]) == {2, 4}


def test_counts_and_splits_follow_the_subjects(maker, tmp_path):
    splits = two_class_cohort(maker)
    facts, found = prepared(maker, splits, tmp_path)
    each = {"cyst": 2, "ring": 2}
    assert facts["counts"] == {"train": {"cyst": 4, "ring": 4}, "validation": each, "test": each}
    assert facts["subjects"] == {"train": 2, "validation": 1, "test": 1}
    assert (facts["modality"], facts["pixel_mm"], facts["size_px"], facts["channels"]) == ("MR", 4.0, 32, 1)
    by_subject = dict(zip(found.table["subject_id"], found.table["split"], strict=True))
    assert by_subject == splits
    assert found.table["image"].to_list() == list(range(16))


def test_a_lesion_looks_the_same_however_its_scan_is_stored(maker, tmp_path):
    voxels, mask = head()
    splits = {}
    for number, (turned, turned_mask, affine) in enumerate(orientations(voxels, mask, affine_of())):
        subject = f"s{number:02d}"
        series = maker.volume(subject, "MR", turned, affine)
        maker.lesion(series, "ring", turned_mask, affine, 1)
        maker.lesion(series, "cyst", turned_mask, affine, 2)
        splits[subject] = "test" if number else "train"
    assert len(splits) == 48
    _, found = prepared(maker, splits, tmp_path)
    for lesion_class in ("ring", "cyst"):
        rows = found.table.filter(pl.col("lesion_class") == lesion_class)
        for _, same in rows.group_by("slice_index"):
            images = found.images[same["image"].to_list()]
            assert len(images) == 48
            assert np.all(images == images[0])
    ring = found.images[found.table.filter(pl.col("lesion_class") == "ring")["image"][0], 0]
    # The lesion lies right of and in front of the middle: less body to its right (left in the picture) and in front.
    air = ring < -16000
    assert air[:, :16].sum() > air[:, 16:].sum()
    assert air[:16].sum() > air[16:].sum()


def test_only_scans_of_the_wanted_modality_are_cut(maker, tmp_path):
    splits = two_class_cohort(maker)
    voxels, mask = head()
    ct = np.where(voxels > 0, 40, -1000)
    series = maker.volume("s0", "CT", ct, affine_of())
    maker.lesion(series, "ring", mask, affine_of(), 1)
    facts, found = prepared(maker, splits, tmp_path)
    assert series not in found.table["series_id"].to_list()
    assert sum(facts["counts"]["train"].values()) == 8


def test_one_class_alone_is_a_set(maker, tmp_path):
    voxels, mask = head()
    splits = {}
    for number, split in enumerate(("train", "test")):
        maker.lesion(maker.volume(f"s{number}", "MR", voxels, affine_of()), "ring", mask, affine_of())
        splits[f"s{number}"] = split
    facts, found = prepared(maker, splits, tmp_path)
    assert facts["classes"] == ["ring"]
    assert found.class_indices().tolist() == [0] * 4


def test_a_class_with_too_few_training_images_is_refused_by_name(maker, tmp_path):
    splits = two_class_cohort(maker)
    with pytest.raises(InputError, match="train split") as caught:
        prepared(maker, splits, tmp_path, min_images_per_class=5)
    assert caught.value.found == "cyst: 4, ring: 4"


def test_a_class_that_cannot_be_tested_is_refused(maker, tmp_path):
    splits = two_class_cohort(maker) | {"s1": "train"}
    with pytest.raises(InputError, match="test split"):
        prepared(maker, splits, tmp_path)


def test_a_catalog_without_lesions_is_refused(maker, tmp_path):
    maker.volume("s0", "MR", head()[0], affine_of())
    with pytest.raises(InputError, match="needs lesions"):
        prepared(maker, {"s0": "train"}, tmp_path)


def picture_cohort(maker):
    """Subject A has a twin in each published split, B to E one picture each; two classes."""
    rng = np.random.default_rng(4)
    plan = [("A", "train", "x"), ("A", "test", "x"), ("B", "train", "y"), ("C", "train", "x"), ("D", "test", "y")]
    plan += [("E", "validation", "y"), ("E", "train", "y")]
    rows = [
        {"subject_id": subject, "subject_source": "near_duplicates", "published_split": split}
        for subject, split, _ in plan
    ]
    names = maker.pictures(rng.integers(0, 256, (len(plan), 32, 32)).astype(np.uint8), rows, "class_folders")
    for name, (_, _, lesion_class) in zip(names, plan, strict=True):
        maker.lesion(name, lesion_class, None, None)
    return names


def catalog_record(maker, workspace):
    def body(context):
        for name in ("volumes", "masks", "stacks"):
            (maker.folder / name).rename(context.folder / name)
        write_catalog(context.folder, maker.series, maker.lesions, [])
        return {}

    return run_stage(workspace, Stage("ingest", "pipeline.catalog", body), RunSettings(), records={})


def test_a_published_split_is_kept_and_twins_across_it_are_left_out(maker, tmp_path):
    names = picture_cohort(maker)
    workspace = Workspace.open(tmp_path / "workspace", identity_key=bytes(32))
    catalog = catalog_record(maker, workspace)
    run = RunSettings.model_validate({"prepare": {"lesions": SMALL}})
    record = prepare_lesions(workspace, run, catalog)
    found = read_image_set(record.path(workspace.root))
    where = dict(zip(found.table["series_id"], found.table["split"], strict=True))
    assert where == {
        names[1]: "test",
        names[2]: "train",
        names[3]: "train",
        names[4]: "test",
        names[5]: "validation",
    }
    assert record.facts["left_out_for_published_split"] == 2
    assert (record.facts["pixel_mm"], record.facts["modality"]) == (None, None)
    assert record.facts["subject_source"] == ["near_duplicates"]
    again = prepare_lesions(workspace, run, catalog)
    assert again.cached
    assert again.content_sha256 == record.content_sha256


def test_pictures_and_table_rows_belong_together(maker, tmp_path):
    names = picture_cohort(maker)
    splits = {"A": "test", "B": "train", "C": "train", "D": "test", "E": "validation"}
    _, found = prepared(maker, splits, tmp_path)
    pixels = np.load(next((maker.folder / "stacks").iterdir()))
    for row in found.table.to_dicts():
        expected = np.rint((pixels[names.index(row["series_id"])] / 127.5 - 1) * 16384)
        assert np.abs(found.images[row["image"], 0] - expected).max() <= 1


def test_new_subjects_leave_the_old_ones_where_they_were(maker, tmp_path):
    two_class_cohort(maker, 12)
    workspace = Workspace.open(tmp_path / "workspace", identity_key=bytes(32))
    record = prepare_lesions(
        workspace, RunSettings.model_validate({"prepare": {"lesions": SMALL}}), catalog_record(maker, workspace)
    )
    table = read_image_set(record.path(workspace.root)).table
    per_subject = table.group_by("subject_id").agg(pl.col("split").n_unique())
    assert per_subject["split"].to_list() == [1] * 12
    assert record.facts["subjects"] == {"train": 7, "test": 3, "validation": 2}


def test_attributes_are_measured_on_the_mask_and_taken_from_the_series(maker, tmp_path):
    splits = two_class_cohort(maker)
    for row, sequence in zip(maker.series, ("T1", "T2", None, "T2"), strict=True):
        row["sequence"] = sequence
    facts, found = prepared(maker, splits, tmp_path, attributes=("size_mm", "sequence"))
    of_class = dict(zip(found.table["lesion_class"], found.table["attribute_size_mm"], strict=True))
    assert of_class["ring"] == pytest.approx(2 * np.sqrt(4 * 4 * 16 / np.pi))
    assert of_class["cyst"] == pytest.approx(2 * np.sqrt(3 * 4 * 16 / np.pi))
    size, sequence = found.attributes
    assert (size.low, size.high) == pytest.approx((of_class["cyst"], of_class["ring"]))
    assert sequence.levels == ("T1", "T2")
    values = found.attribute_values()
    assert values.shape == (found.table.height, 2)
    assert set(values[:, 0].tolist()) == {-1.0, 1.0}
    missing = np.isnan(values[:, 1])
    assert missing.tolist() == [name is None for name in found.table["attribute_sequence"]]
    assert missing.any()
    assert not missing.all()
    assert [attribute["name"] for attribute in facts["attributes"]] == ["size_mm", "sequence"]


def test_without_attributes_a_set_says_nothing_of_them(maker, tmp_path):
    facts, found = prepared(maker, two_class_cohort(maker), tmp_path)
    assert "attributes" not in facts
    assert found.attributes == ()
    assert found.attribute_values().shape == (found.table.height, 0)
    assert not [name for name in found.table.columns if name.startswith("attribute")]


def test_attributes_that_tell_nothing_are_refused(maker, tmp_path):
    with pytest.raises(InputError, match="body_part"):
        prepared(maker, two_class_cohort(maker), tmp_path, attributes=("body_part",))


def two_sequences(maker, subject, *, frame="1.2", moved=False, second="t2"):
    """A T1 with a lesion, and a T2 of one plane more in which it is dark; in one frame of reference, or in none."""
    voxels, mask = head()
    grown, affine = np.concatenate([voxels[:, :, :1], voxels], axis=2), affine_of()
    affine[:3, 3] -= affine[:3, 2]
    lesion = np.concatenate([np.zeros_like(mask[:, :, :1]), mask], axis=2) == 1
    grown = np.where(lesion, 100, grown)
    shape = {"sequence": second, "frame_of_reference_uid": "9.9" if moved else frame}
    maker.volume(subject, "MR", grown, affine, **shape)
    first = maker.volume(subject, "MR", voxels, affine_of(), sequence="T1", frame_of_reference_uid=frame)
    maker.lesion(first, "ring", mask, affine_of())
    return first


def test_sequences_of_one_frame_are_channels_that_show_the_same_place(maker, tmp_path):
    splits = {}
    for subject, split in (("s0", "train"), ("s1", "test")):
        two_sequences(maker, subject)
        splits[subject] = split
    facts, found = prepared(maker, splits, tmp_path, sequences=["T1", "T2"])
    assert (facts["channels"], facts["sequences"], found.images.shape[1:]) == (2, ["T1", "T2"], (2, 32, 32))
    assert facts["left_out_for_missing_sequences"] == 0
    middle = found.images[:, :, 15:17, 15:17].mean(axis=(2, 3)) / 16384
    assert np.all(middle[:, 0] > 0.5)
    assert np.all(middle[:, 1] < -0.5)
    other = found.images[:, :, 2:6, 2:6].astype(float)  # beside the lesion both show the same body
    assert np.abs(other[:, 0] - other[:, 1]).max() < 0.05 * 16384
    prepared(maker, splits, tmp_path / "turned", sequences=["T2", "T1"])
    turned = read_image_set(tmp_path / "turned" / "out").images
    assert np.array_equal(turned[:, ::-1], found.images)


def test_lesions_without_every_sequence_in_their_frame_are_left_out_and_counted(maker, tmp_path):
    splits = {}
    cases = (("s0", {}), ("s1", {}), ("s2", {"moved": True}), ("s3", {"second": "PD"}), ("s4", {"frame": None}))
    for subject, changes in cases:
        two_sequences(maker, subject, **changes)
        splits[subject] = "test" if subject == "s1" else "train"
    facts, found = prepared(maker, splits, tmp_path, sequences=["T1", "T2"])
    assert facts["left_out_for_missing_sequences"] == 3
    assert set(found.table["subject_id"]) == {"s0", "s1"}
    with pytest.raises(InputError, match="registered scan of every sequence") as caught:
        prepared(maker, splits, tmp_path / "none", sequences=["T1", "FLAIR"])
    assert caught.value.found == "5 lesions without one of T1, FLAIR, 0 images that could be made"


def test_without_a_frame_of_reference_scans_on_one_grid_are_registered(maker, tmp_path):
    splits = {}
    for subject, split in (("s0", "train"), ("s1", "test")):
        voxels, mask = head()
        maker.volume(subject, "MR", np.where(mask == 1, 100, voxels), affine_of(), sequence="T2")
        maker.lesion(maker.volume(subject, "MR", voxels, affine_of(), sequence="T1"), "ring", mask, affine_of())
        splits[subject] = split
    facts, _ = prepared(maker, splits, tmp_path, sequences=["T1", "T2"])
    assert facts["channels"] == 2
