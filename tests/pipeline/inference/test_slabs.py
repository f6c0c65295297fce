"""Windows in three dimensions: no seams, the right neighbors and coordinates, memory of a few slices."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv3d

from pipeline.inference import WindowPlan, translate_slices, translate_volume
from pipeline.slice_stacks import BodyFrame
from tests.pipeline.inference.conftest import CPU, PATCH, noise, source_of
from tests.pipeline.inference.conftest import member as two_dimensional

K = 16
PLANS = [WindowPlan(o, b) for o in (0.0, 0.25, 0.5, 0.8) for b in ("gaussian", "cosine")]


def member(network, coordinates=False):
    return two_dimensional(network, slices=K, coordinates=coordinates, dimensions=3)


@pytest.fixture
def translated(tmp_path):
    def run(network, mr, plan=None, mask=None, near=None, coordinates=False, **more):
        source = source_of(mr, mask, near)
        members = [member(each, coordinates) for each in (network if isinstance(network, list) else [network])]
        maps = translate_volume(source, members, plan or WindowPlan(), lambda units: units, CPU, tmp_path, **more)
        return maps.mean.copy(), np.stack([maps.deviation(k) for k in range(len(mr))])

    return run


def smooth(x):
    """A symmetric kernel of 3 x 3 x 3: a linear operator that commutes with shifts and mirrors."""
    line = torch.tensor([1.0, 2, 1]) / 4
    kernel = line[:, None, None] * line[None, :, None] * line[None, None, :]
    return conv3d(x[:, None], kernel[None, None], padding=1)[:, 0]


@pytest.mark.parametrize("shape", [(16, 20, 17), (17, 33, 32), (45, 32, 40), (5, 40, 36), (1, 32, 32)])
@pytest.mark.parametrize("plan", PLANS)
def test_a_linear_translator_of_voxels_shows_no_seams(translated, shape, plan):
    mr = noise(shape)
    mean, deviation = translated(lambda x: 0.5 * x + 0.1, mr, plan=plan)
    np.testing.assert_allclose(mean, 0.5 * mr + 0.1, atol=1e-6, rtol=0)
    assert not deviation.any()


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.overlap >= 0.25])
def test_windows_of_a_translator_that_commutes_with_shifts_equal_the_whole_volume(translated, plan):
    mr = noise((50, 47, 60))
    expected = smooth(torch.from_numpy(mr)[None])[0].numpy()
    inner = (slice(2, -2),) * 3  # padding of the volume itself is another thing
    np.testing.assert_allclose(translated(smooth, mr, plan=plan)[0][inner], expected[inner], atol=1e-6, rtol=0)


def test_windows_that_disagree_are_blended_smoothly_along_the_slices(translated):
    levels = iter(range(100))
    mean, _ = translated(lambda x: torch.full_like(x, float(next(levels))), noise((48, PATCH, PATCH)))
    steps = np.diff(mean[:, 3, 3])
    assert next(levels) == 5
    assert steps.min() > -1e-5
    assert steps.sum() == pytest.approx(4.0, abs=0.1)
    assert steps.max() < 0.6, "half-overlapping windows are blended over half their slices"


def test_the_mirror_image_is_mirrored_back_and_coordinates_tell_the_middle_of_the_stack(translated):
    shape = (30, 40, 50)
    mask = np.zeros(shape, np.uint8)
    mask[2:28, 5:35, 4:46] = 1
    asked = {"mask": mask, "near": np.ones(shape, bool)}
    mr = noise(shape)
    mean, deviation = translated(lambda x: x, mr, mirrored=True, **asked)
    np.testing.assert_allclose(mean, mr, atol=1e-6)
    assert deviation.max() < 1e-6
    frame = BodyFrame.of(mask)
    rows = translated(lambda x: x[:, K + 1 : K + 2].expand(-1, K, -1, -1), mr, coordinates=True, **asked)[0]
    columns, spread = translated(
        lambda x: x[:, K + 2 :].expand(-1, K, -1, -1), mr, coordinates=True, mirrored=True, **asked
    )
    # In the mirror image left and right change places, and the coordinate with them: both answers are one another's
    # opposite, but for the middle.
    expected = frame.coordinates(0, np.arange(40), np.arange(50))
    np.testing.assert_allclose(rows[7], expected[1], atol=1e-5)
    np.testing.assert_allclose(columns, np.zeros(shape), atol=1e-5)
    assert spread.max() > 0.5
    heights = translated(lambda x: x[:, K : K + 1].expand(-1, K, -1, -1), mr, coordinates=True, **asked)[0]
    assert heights[0].max() == pytest.approx(frame.relative(0, np.asarray(K // 2)), abs=1e-5)


def test_chosen_slices_are_those_of_the_whole_volume(tmp_path):
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 1, 3, 3, 3, generator=rng)

    def network(x):
        return conv3d(x[:, None], weight, padding=1)[:, 0]

    source = source_of(noise((40, 40, 40)))
    whole = translate_volume(source, [member(network)], WindowPlan(), lambda units: units, CPU, tmp_path).mean
    chosen = [0, 9, 23, 39]
    found = list(translate_slices(source, member(network), WindowPlan(), lambda units: units, CPU, chosen))
    np.testing.assert_allclose(found, whole[chosen], atol=1e-5)


def test_slices_without_body_are_left_alone_and_windows_without_body_are_never_asked_for(translated):
    shape = (80, PATCH, PATCH)
    near = np.zeros(shape, bool)
    near[20:30, 5:20, 5:20] = True
    seen = []

    def count(x):
        seen.append(len(x))
        return x

    mr = noise(shape)
    mean, _ = translated(count, mr, near=near)
    assert sum(seen) == 1
    np.testing.assert_allclose(mean[20:30], mr[20:30], atol=1e-6)
    assert not mean[:20].any()
    assert not mean[30:].any()


def test_slices_are_handed_on_as_soon_as_no_later_window_holds_them():
    """So that sums are kept for the slices of one window, however many the volume has."""
    asked = []

    def watch(x):
        asked.append(len(asked))
        return x

    source = source_of(noise((120, PATCH, PATCH)))
    given = translate_slices(source, member(watch), WindowPlan(0.5), lambda units: units, CPU, range(120))
    for index, _ in enumerate(given):
        assert len(asked) <= index // (K // 2) + 2
    assert len(asked) == 14
