import numpy as np
import pytest
import torch

from pipeline.inference import translate_volume
from pipeline.slice_stacks import BodyFrame, neighbors
from pipeline.trained_models import TranslatorSettings

CPU = torch.device("cpu")
PATCH = 32


def settings(slices=1, coordinates=False):
    return TranslatorSettings(generator="unet", width=4, slices=slices, coordinates=coordinates, patch_px=PATCH)


def volume(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def translated(translator, mr, *, slices=1, coordinates=False, overlap=0.5, mask=None, on_slice=lambda done: None):
    body = np.ones(mr.shape, np.uint8) if mask is None else mask
    return translate_volume(translator, settings(slices, coordinates), mr, body, overlap, CPU, on_slice)


@pytest.mark.parametrize("shape", [(2, 20, 17), (1, 32, 32), (2, 33, 47), (3, 75, 64), (2, 31, 90), (1, 1, 200)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_the_identity_gives_the_volume_back(shape, overlap):
    mr = volume(shape)
    np.testing.assert_allclose(translated(lambda x: x, mr, overlap=overlap), mr, atol=1e-5)


def test_a_linear_translator_shows_no_seams():
    mr = volume((2, 71, 53))
    np.testing.assert_allclose(translated(lambda x: 0.5 * x + 0.1, mr), 0.5 * mr + 0.1, atol=1e-5)


def test_a_shift_of_each_window_is_blended_smoothly():
    """A translator that says another level in each window leaves no step larger than the blending weight allows."""
    counted = 0

    def moody(windows):
        nonlocal counted
        levels = torch.arange(counted, counted + len(windows), dtype=torch.float32)
        counted += len(windows)
        return levels[:, None, None, None] + torch.zeros_like(windows)

    steps = np.diff(translated(moody, volume((1, 32, 96)))[0], axis=1)
    assert counted == 5
    assert np.all(steps >= -1e-5), "levels rise from window to window"
    assert steps.sum(axis=1) == pytest.approx(4.0, abs=0.05), "from the first window's level to the last one's"
    assert steps.max() < 0.25, "half-overlapping windows are blended over half their side"


@pytest.mark.parametrize("slices", [3, 5])
def test_the_middle_slice_of_a_stack_is_kept(slices):
    mr = volume((6, 40, 36))
    np.testing.assert_allclose(translated(lambda x: x, mr, slices=slices), mr, atol=1e-5)


def test_a_translator_sees_its_neighbors_in_order():
    mr = volume((4, 32, 32))
    above = translated(lambda x: x[:, [2, 2, 2]], mr, slices=3)  # always the slice above
    np.testing.assert_allclose(above, mr[[1, 2, 3, 3]], atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 70, 45), (3, 20, 18), (3, 25, 60)])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_coordinates_reach_the_translator_in_their_place(shape, channel):
    mask = np.zeros(shape, np.uint8)
    mask[1:, 4 : shape[1] - 3, 6 : shape[2] - 2] = 1
    out = translated(lambda x: x[:, 1 + channel : 2 + channel], volume(shape), coordinates=True, mask=mask)
    frame = BodyFrame.of(mask)
    expected = [frame.coordinates(k, np.arange(shape[1]), np.arange(shape[2]))[channel] for k in range(shape[0])]
    np.testing.assert_allclose(out, np.stack(expected), atol=1e-5)


def test_beyond_a_small_slice_the_translator_sees_what_training_shows_it():
    """Air, and coordinates that go on, as the patch sampler cuts patches that reach beyond a slice."""
    seen = []

    def watch(windows):
        seen.append(windows.clone())
        return windows[:, :1]

    mr = np.full((1, 20, 32), 0.3, np.float32)
    mask = np.zeros(mr.shape, np.uint8)
    mask[:, 4:16, 8:24] = 1
    translated(watch, mr, coordinates=True, mask=mask)
    (window,) = seen[0]
    inside = slice(6, 26)  # twelve rows are missing: six above, six below
    assert torch.all(window[0, inside] == np.float32(0.3))
    assert torch.all(window[0, :6] == -1)
    assert torch.all(window[0, 26:] == -1)
    expected = BodyFrame.of(mask).coordinates(0, np.arange(-6, 26), np.arange(32))
    np.testing.assert_allclose(window[1:].numpy(), expected, atol=1e-6)


def test_windows_have_the_side_of_the_training_patch():
    sides = set()

    def watch(windows):
        sides.add(tuple(windows.shape[2:]))
        return windows

    for shape in [(1, 20, 20), (1, 33, 100), (1, 64, 31)]:
        translated(watch, volume(shape))
    assert sides == {(PATCH, PATCH)}


def test_slices_are_counted_and_nothing_is_changed():
    done = []
    mr = volume((5, 32, 32))
    before = mr.copy()
    translated(lambda x: x, mr, on_slice=done.append)
    assert done == [1, 2, 3, 4, 5]
    assert np.array_equal(mr, before)
    assert neighbors(0, 3, 5).tolist() == [0, 0, 1]
