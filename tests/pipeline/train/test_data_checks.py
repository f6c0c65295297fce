import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import InputError
from pipeline.intensity import from_int16
from pipeline.prepared_set import ImageSet
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.data_checks import check_images, check_slices, variety
from pipeline.train.mr_to_ct_training import MRToCTTraining


def changed(images, *, array=None, facts=None, table=None):
    return ImageSet(
        np.array(images.images) if array is None else array,
        images.table if table is None else table,
        dict(images.facts) | (facts or {}),
    )


def training_rows(images, name):
    return images.table.filter((pl.col("lesion_class") == name) & (pl.col("split") == "train"))["image"].to_list()


def test_a_usable_set_passes(images):
    check_images(images)


def test_a_class_without_training_images_is_refused(images):
    table = images.table.with_columns(
        pl.when(pl.col("lesion_class") == "dark").then(pl.lit("test")).otherwise(pl.col("split")).alias("split")
    )
    with pytest.raises(InputError, match="dark: 0 images"):
        check_images(changed(images, table=table))


def test_a_class_with_one_training_image_is_refused(images):
    _, *others = training_rows(images, "dark")
    table = images.table.with_columns(
        pl.when(pl.col("image").is_in(others)).then(pl.lit("test")).otherwise(pl.col("split")).alias("split")
    )
    with pytest.raises(InputError, match="dark: 1 images, 0 of one grey, 1 different"):
        check_images(changed(images, table=table))


def test_copies_of_one_image_are_one_image(images):
    array, rows = np.array(images.images), training_rows(images, "bright")
    array[rows] = array[rows[0]]
    with pytest.raises(InputError, match="bright: 6 images, 0 of one grey, 1 different"):
        check_images(changed(images, array=array))


def test_constant_images_show_nothing(images):
    array, rows = np.array(images.images), training_rows(images, "bright")
    for number, row in enumerate(rows):
        array[row] = 100 * number
    with pytest.raises(InputError, match="bright: 6 images, 6 of one grey, 0 different"):
        check_images(changed(images, array=array))


def test_a_few_constant_images_among_others_are_no_reason_to_stop(images):
    array, rows = np.array(images.images), training_rows(images, "bright")
    array[rows[0]] = 0
    check_images(changed(images, array=array))


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (lambda a: from_int16(a), {}),  # floats, which could hold NaN
        (lambda a: np.repeat(a, 3, axis=1), {"channels": 1}),
        (lambda a: a, {"channels": 3}),
        (lambda a: a[:, :, :24, :24], {}),
        (lambda a: a[:, :, :, :16], {}),
        (lambda a: a[:, 0], {}),
    ],
)
def test_other_storage_channels_and_sizes_are_refused(images, array, facts):
    with pytest.raises(InputError, match="square, in int16"):
        check_images(changed(images, array=array(np.array(images.images)), facts=facts))


def test_a_class_that_the_set_does_not_name_is_refused_without_its_name(images):
    table = images.table.with_columns(
        pl.when(pl.col("image") == 0).then(pl.lit("Jane Doe")).otherwise(pl.col("lesion_class")).alias("lesion_class")
    )
    with pytest.raises(InputError, match="1 further classes") as caught:
        check_images(changed(images, table=table))
    assert "Jane" not in str(caught.value)


def test_slices_that_are_all_alike_are_refused():
    rng = np.random.default_rng(0)
    good, copies = rng.normal(size=(3, 8, 8)).astype(np.float32), np.ones((3, 8, 8), np.float32)
    check_slices({"MR": good, "CT": good[:0]})
    with pytest.raises(InputError, match="CT: 3 training slices with body, 0 different"):
        check_slices({"MR": good, "CT": copies})
    with pytest.raises(InputError, match="MR: 2 training slices with body, 1 different"):
        check_slices({"MR": np.stack([good[0], good[0]])})


def test_an_empty_mr_stops_a_translation_before_it_starts(volumes):
    stored = {name: np.array(array) for name, array in volumes.arrays.items()}
    stored["mr"][:] = -16384
    settings = TrainMRToCTSettings(patch_px=32, width=4, discriminator_width=4)
    with pytest.raises(InputError, match="MR: 12 training slices with body, 0 different"):
        MRToCTTraining(type(volumes)(stored, volumes.table, volumes.facts), settings, 1, torch.device("cpu"))


def test_variety_is_zero_for_copies_and_root_two_for_noise():
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 32, 32, generator=rng)
    assert variety(image.repeat(5, 1, 1, 1)) == 0
    # E|a − b| / E|a| = √2 for independent Gaussian pixels
    assert variety(torch.randn(20, 1, 32, 32, generator=rng)) == pytest.approx(2**0.5, rel=0.02)
    faint = image + 0.01 * torch.randn(20, 1, 32, 32, generator=rng)
    assert variety(faint) == pytest.approx(0.01 * 2**0.5, rel=0.05)
    assert variety(3 * faint + 0.2) == pytest.approx(variety(faint), rel=1e-6)
    assert variety(torch.zeros(3, 1, 4, 4)) == 0
