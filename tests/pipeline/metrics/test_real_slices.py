"""Paired metrics on real CT slices and somebody else's pseudo-CT of them, against independent implementations."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.metrics.dice import structure_overlap
from pipeline.metrics.geometry_agreement import better_mirrored
from pipeline.metrics.mae import error_by_tissue, mae, mean_error
from pipeline.metrics.ms_ssim import ms_ssim
from pipeline.metrics.pairs import DIALECTS
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim
from pipeline.metrics.wepl import ICRU44_70_KEV, wepl_difference

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent")) / "ct_slices"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder with ct_slices"),
]
SUBJECTS = ("1BA012", "1BA058", "1BB002", "1BB007", "1BC039")
HU = DIALECTS["synthrad2023"]
GREY = DIALECTS["grey8"]


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.fixture(scope="module", params=SUBJECTS)
def pair(request):
    """Grey levels and probable HU of a real slice and its pseudo-CT, and a head mask."""
    models = sorted((DATA / "model").glob(f"Out_{request.param}-*.png"))
    chosen = models[len(models) // 2]
    real, made = grey(DATA / "real" / chosen.name.replace("Out_", "GT_")), grey(chosen)
    hu = [values / 255 * 3000 - 1000 for values in (real, made)]
    return real, made, hu[0], hu[1], real > 40


def test_errors_equal_plain_loops_over_voxels(pair):
    _, _, ct, made, mask = pair
    differences = [(float(b) - float(a)) for a, b, m in zip(ct.flat, made.flat, mask.flat, strict=True) if m]
    assert mae(ct, made, mask) == pytest.approx(math.fsum(map(abs, differences)) / len(differences), abs=1e-6)
    assert mean_error(ct, made, mask) == pytest.approx(math.fsum(differences) / len(differences), abs=1e-6)
    tissues = error_by_tissue(ct, made, mask)
    assert sum(found.voxels for found in tissues.values()) == mask.sum()
    total = sum(found.mae * found.voxels for found in tissues.values() if found.mae is not None)
    assert total / mask.sum() == pytest.approx(mae(ct, made, mask), abs=1e-6)


@pytest.mark.parametrize("name", ["synthrad2023", "synthrad2025-container"])
def test_psnr_equals_scikit_image_on_the_masked_voxels(pair, name):
    _, _, ct, made, mask = pair
    bounds = DIALECTS[name]
    x, y = (np.clip(image[mask], bounds.low, bounds.high) for image in (ct, made))
    expected = peak_signal_noise_ratio(x, y, data_range=bounds.width)
    assert psnr(ct, made, mask, bounds) == pytest.approx(expected, abs=1e-6)


def test_ssim_equals_scikit_image_inside_the_mask(pair):
    _, _, ct, made, mask = pair
    x, y = (np.where(mask, np.clip(image, HU.low, HU.high) - HU.low, 0) for image in (ct, made))
    _, full = structural_similarity(x, y, data_range=HU.width, win_size=7, full=True)
    assert ssim(ct, made, mask, HU) == pytest.approx(full[3:-3, 3:-3][mask[3:-3, 3:-3]].mean(), abs=1e-6)
    real, fake = pair[0], pair[1]
    expected = structural_similarity(real, fake, data_range=255, win_size=7)
    assert ssim(real, fake, None, GREY) == pytest.approx(expected, abs=1e-6)


def test_the_same_slice_scores_perfectly_and_a_mirrored_one_does_not(pair):
    real, _, ct, made, mask = pair
    assert (mae(ct, ct, mask), ssim(ct, ct, mask, HU), psnr(ct, ct, mask, HU)) == (0, pytest.approx(1), math.inf)
    assert ms_ssim(ct, ct, mask, HU) == pytest.approx(1)
    assert ms_ssim(ct, made, mask, HU) > ms_ssim(ct, made[::-1], mask, HU)
    assert better_mirrored(ct, made, mask) is None
    for axis in (0, 1):
        assert better_mirrored(ct, np.flip(made, axis), mask) == axis
    assert real.dtype == np.uint8


def test_bone_overlap_and_surface_distance_equal_nearest_neighbors_of_surface_points(pair):
    real, made = pair[0], pair[1]
    bones = [image >= 150 for image in (real, made)]
    spacing = (1.2, 0.9)
    found = structure_overlap(*bones, spacing)
    surfaces = []
    for bone in bones:
        padded = np.pad(bone, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        surfaces.append(np.argwhere(bone & ~inner) * spacing)
    far = [np.percentile(cKDTree(b).query(a)[0], 95) for a, b in (surfaces, surfaces[::-1])]
    assert found.hd95_mm == pytest.approx(max(far), abs=1e-6)
    assert found.dice == pytest.approx(2 * (bones[0] & bones[1]).sum() / (bones[0].sum() + bones[1].sum()), abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_overlap_equals_monai(pair):
    from monai.metrics import compute_dice, compute_hausdorff_distance

    bones = [torch.from_numpy(image >= 150)[None, None].float() for image in (pair[1], pair[0])]
    found = structure_overlap(pair[0] >= 150, pair[1] >= 150, (1.0, 1.0))
    assert found.dice == pytest.approx(float(compute_dice(*bones)), abs=1e-6)
    expected = float(compute_hausdorff_distance(*bones, include_background=True, percentile=95, spacing=(1.0, 1.0)))
    assert found.hd95_mm == pytest.approx(expected, rel=1e-6)  # MONAI measures in float32


def test_path_lengths_along_the_axes_equal_sums_of_stopping_powers(pair):
    ct, made = (image[:-1, :-1] for image in pair[2:4])  # an odd number of columns, so that beams meet voxel centers
    mask = np.ones((*ct.shape, 1), bool)
    found = wepl_difference(ct[:, :, None], made[:, :, None], mask, (1.0, 1.0), angles_deg=(0.0, 90.0))
    delta = ICRU44_70_KEV.of(made) - ICRU44_70_KEV.of(ct)
    beams = np.concatenate([delta.sum(axis=0), delta.sum(axis=1)])
    assert found.beams == len(beams)
    assert found.mean_abs_mm == pytest.approx(np.abs(beams).mean(), abs=1e-6)
    assert found.p95_abs_mm == pytest.approx(np.quantile(np.abs(beams), 0.95), abs=1e-6)
