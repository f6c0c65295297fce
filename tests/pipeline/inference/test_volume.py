import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from pipeline.inference import WindowPlan, pictures_of, translate_slices
from pipeline.slice_stacks import BodyFrame, neighbors
from tests.pipeline.inference.conftest import CPU, PATCH, member, noise, source_of

PLANS = [WindowPlan(o, b) for o in (0.0, 0.25, 0.5, 0.8) for b in ("gaussian", "cosine")]
PLANES = ("axial", "coronal", "sagittal")


def affine(x):
    return 0.5 * x + 0.1


def smooth(x):
    """A symmetric kernel of 3 x 3: a linear operator that commutes with shifts and mirrors."""
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None] / 16
    return conv2d(x, kernel, padding=1)


@pytest.mark.parametrize("shape", [(2, 20, 17), (1, 32, 32), (2, 33, 47), (1, 75, 64), (1, 31, 90), (1, 1, 200)])
@pytest.mark.parametrize("plan", PLANS)
def test_a_linear_translator_of_pixels_shows_no_seams(translated, shape, plan):
    mr = noise(shape)
    mean, deviation = translated(affine, mr, plan=plan)
    np.testing.assert_allclose(mean, 0.5 * mr + 0.1, atol=1e-6, rtol=0)
    assert not deviation.any(), "a single answer has no spread"


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.overlap >= 0.25])
def test_windows_of_a_translator_that_commutes_with_shifts_equal_the_whole_slice(translated, plan):
    """What a window sees of its padding lies in its rim, which does not count where another window does."""
    mr = noise((1, 110, 97))
    expected = smooth(torch.from_numpy(mr)[:, None])[:, 0].numpy()
    inner = (0, slice(2, -2), slice(2, -2))  # padding of the slice itself is another thing
    np.testing.assert_allclose(translated(smooth, mr, plan=plan)[0][inner], expected[inner], atol=1e-6, rtol=0)


@pytest.mark.parametrize("plan", [WindowPlan(0.5, "gaussian"), WindowPlan(0.5, "cosine")])
def test_windows_that_disagree_are_blended_smoothly(translated, plan):
    """A translator that says another level in each window leaves no step larger than the weights allow."""
    levels = iter(range(100))

    def moody(windows):
        return torch.full_like(windows, float(next(levels)))

    mean, _ = translated(moody, noise((1, PATCH, 96)), plan=plan)
    steps = np.diff(mean[0], axis=1)
    assert next(levels) == 5
    assert steps.min() > -1e-5, "levels rise from window to window"
    assert steps.sum(axis=1) == pytest.approx(4.0, abs=0.05), "from the first window's level to the last one's"
    assert steps.max() < 0.25, "half-overlapping windows are blended over half their side"


def test_a_whole_slice_is_asked_for_once_and_has_sides_that_can_be_halved(translated):
    seen = []

    def watch(windows):
        seen.append(tuple(windows.shape))
        return windows

    mr = noise((1, 45, 83))
    source = source_of(mr)
    plan = WindowPlan(whole_slice=True)
    (answer,) = translate_slices(source, member(watch, divisor=8), plan, lambda units: units, CPU, [0])
    np.testing.assert_allclose(answer, mr[0], atol=1e-6)
    assert seen == [(1, 1, 48, 88)]


@pytest.mark.parametrize("slices", [3, 5])
def test_the_middle_slice_of_a_stack_is_kept(translated, slices):
    mr = noise((6, 40, 36))
    np.testing.assert_allclose(translated(lambda x: x, mr, slices=slices)[0], mr, atol=1e-6)


@pytest.mark.parametrize("plane", PLANES)
def test_a_translator_sees_its_neighbors_in_order(translated, plane):
    mr = noise((5, 33, 34))
    axis = PLANES.index(plane)
    size = mr.shape[axis]
    above = translated(lambda x: x[:, [2, 2, 2]], mr, slices=3, planes=[plane])[0]  # always the next picture
    np.testing.assert_allclose(above, np.take(mr, [*range(1, size), size - 1], axis), atol=1e-6)
    assert neighbors(0, 3, 5).tolist() == [0, 0, 1]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_coordinates_keep_their_meaning_in_every_plane(translated, plane, channel):
    shape = (3, 25, 60)
    mask = np.zeros(shape, np.uint8)
    mask[1:, 4:22, 6:58] = 1
    everywhere = np.ones(shape, bool)
    asked = {"coordinates": True, "mask": mask, "near": everywhere, "spacing": (2.0, 1.0, 1.0), "planes": [plane]}
    out, _ = translated(lambda x: x[:, 1 + channel : 2 + channel], noise(shape), **asked)
    frame = BodyFrame.of(mask)
    expected = [frame.coordinates(k, np.arange(shape[1]), np.arange(shape[2]))[channel] for k in range(shape[0])]
    np.testing.assert_allclose(out, np.stack(expected), atol=1e-6)


def test_beyond_a_small_slice_the_translator_sees_what_training_shows_it(translated):
    """Air, and coordinates that go on, as the patch sampler cuts patches that reach beyond a slice."""
    seen = []

    def watch(windows):
        seen.append(windows.clone())
        return windows[:, :1]

    mr = np.full((1, 20, 32), 0.3, np.float32)
    mask = np.zeros(mr.shape, np.uint8)
    mask[:, 4:16, 8:24] = 1
    translated(watch, mr, coordinates=True, mask=mask, near=np.ones(mr.shape, bool))
    (window,) = seen[0]
    inside = slice(6, 26)  # twelve rows are missing: six above, six below
    assert torch.all(window[0, inside] == np.float32(0.3))
    assert torch.all(window[0, :6] == -1)
    assert torch.all(window[0, 26:] == -1)
    expected = BodyFrame.of(mask).coordinates(0, np.arange(-6, 26), np.arange(32))
    np.testing.assert_allclose(window[1:].numpy(), expected, atol=1e-6)


def test_windows_have_the_side_of_the_training_patch_and_leave_out_what_is_not_wanted(translated):
    sides, counted = set(), []

    def watch(windows):
        sides.add(tuple(windows.shape[2:]))
        counted.append(len(windows))
        return windows

    for shape in [(1, 20, 20), (1, 33, 100), (1, 64, 31)]:
        translated(watch, noise(shape))
    assert sides == {(PATCH, PATCH)}
    counted.clear()
    mr, near = noise((2, 96, 96)), np.zeros((2, 96, 96), bool)
    near[0, 40:60, 30:50] = True
    mean, _ = translated(watch, mr, near=near)
    assert sum(counted) == 1, "one window holds the body, and the other slice holds none"
    np.testing.assert_allclose(mean[near], mr[near], atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (2.5, 1.0, 1.0)])
def test_planes_of_a_translator_that_is_alike_in_all_of_them_equal_it(translated, spacing, mirrored):
    mr = noise((6, 40, 35))
    mean, deviation = translated(affine, mr, planes=PLANES, spacing=spacing, mirrored=mirrored)
    np.testing.assert_allclose(mean, 0.5 * mr + 0.1, atol=1e-6)
    assert deviation.max() < 1e-6


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("slices", "coordinates"), [(1, False), (3, True)])
def test_a_translator_that_commutes_with_mirrors_is_certain(translated, plane, slices, coordinates):
    """Its mirrored answer to the mirrored patient is its answer; coordinates are those of the mirrored patient."""

    def fair(x):
        across = x[:, :slices].mean(1, keepdim=True)
        out = smooth(across) if not coordinates else smooth(across) + x[:, slices + 2 : slices + 3] ** 2
        return out.expand(-1, slices, -1, -1)

    mr = noise((7, 41, 37))
    asked = {"slices": slices, "coordinates": coordinates, "planes": [plane]}
    straight, _ = translated(fair, mr, **asked)
    mean, deviation = translated(fair, mr, mirrored=True, **asked)
    np.testing.assert_allclose(mean, straight, atol=1e-6)
    assert deviation.max() < 1e-6


def test_one_that_tells_left_from_right_is_uncertain_by_what_it_tells(translated):
    """It adds the place in the body from right to left, d. Mirrored it says -d: deviation |d - (-d)| / sqrt 2."""
    mr = noise((2, 33, 41))
    told = lambda x: x[:, :1] + x[:, 3:4]  # noqa: E731
    mean, deviation = translated(told, mr, coordinates=True, mirrored=True)
    across = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(mean, mr, atol=1e-5)
    np.testing.assert_allclose(deviation, np.broadcast_to(np.sqrt(2) * np.abs(across), mr.shape), atol=1e-5)


def test_the_spread_of_an_ensemble_is_its_standard_deviation(translated):
    mr = noise((2, 40, 40))
    levels = [-0.3, 0.05, 0.4, 0.1]
    networks = [lambda x, level=level: x * (1 + level) + level for level in levels]
    mean, deviation = translated(networks, mr)
    every = np.stack([mr * (1 + level) + level for level in levels])
    np.testing.assert_allclose(mean, every.mean(0), atol=1e-6)
    np.testing.assert_allclose(deviation, every.std(0, ddof=1), atol=1e-5)


def test_pictures_are_counted_and_nothing_is_changed(translated):
    done = []
    mr = noise((5, 32, 33))
    before = mr.copy()
    translated(affine, mr, on_picture=done.append, planes=PLANES)
    assert done == list(range(1, 5 + 32 + 33 + 1))
    assert pictures_of(mr.shape, PLANES) == len(done)
    assert np.array_equal(mr, before)


def test_sixteen_bits_are_used_where_they_are_asked_for(translated):
    weight = torch.full((1, 1, 1, 1), 1.0 + 2**-7)
    mr = noise((1, 40, 40))
    exact, _ = translated(lambda x: conv2d(x, weight), mr)
    short, _ = translated(lambda x: conv2d(x, weight), mr, plan=WindowPlan(bfloat16=True))
    np.testing.assert_allclose(exact, mr * (1 + 2**-7), atol=1e-6)
    assert 1e-4 < np.abs(short - exact).max() < 2e-2
