"""A model of three dimensions passes through the stage that writes pseudo-CT: files, uncertainty, refusals."""

import nibabel as nib
import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.generate.stage import translate_mr_to_ct
from pipeline.settings import RunSettings
from pipeline.trained_models import TranslatorSettings

VOLUME = TranslatorSettings(generator="unet", width=4, slices=8, dimensions=3, coordinates=True, patch_px=32)
SHAPE = (20, 24, 19)
AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])


def translate(world, **changes):
    records = world.records(translator=VOLUME)
    settings = RunSettings.model_validate({"device": "cpu", "generate": {"mr_to_ct": changes}})
    record = translate_mr_to_ct(world.workspace, settings, records["catalog"], records["prepared"], records["trained"])
    folder = record.path(world.workspace.root)
    return folder, pl.read_parquet(folder / "cases.parquet").to_dicts()


@pytest.fixture
def body(world):
    i, j, k = np.indices(SHAPE)
    inside = np.hypot((i - 9.5) / 8, (j - 11.5) / 10) < 1
    units = np.where(inside, 0.3 * np.sin(k) + 0.02 * i, -1.0)
    world.add("a", units, AFFINE, SHAPE, AFFINE, mask=inside)
    return world


def test_a_volume_is_written_on_the_grid_of_the_mr_with_its_uncertainty(body):
    folder, (case,) = translate(body)
    image, spread = nib.load(folder / case["nifti_path"]), nib.load(folder / case["uncertainty_nifti"])
    assert image.shape == spread.shape == SHAPE
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)
    hu, deviation = np.asarray(image.dataobj), np.asarray(spread.dataobj)
    assert hu[0, 0, 0] == -1000
    inside = np.s_[6:14, 8:16]
    assert np.abs(np.diff(hu[inside].astype(int), axis=2)).max() > 0
    assert deviation[inside].max() > 0, "the mirror image is answered otherwise by a network without symmetry"
    assert len(list((folder / case["dicom_folder"]).glob("*.dcm"))) == SHAPE[2]


def test_other_planes_are_refused_before_anything_is_written(body):
    with pytest.raises(InputError, match="sees all planes at once") as caught:
        translate(body, planes=["axial", "coronal"])
    assert caught.value.allowed == "axial"
    assert not list(body.workspace.root.rglob("*pseudo-ct*"))
