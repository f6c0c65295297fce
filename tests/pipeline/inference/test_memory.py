"""Memory holds a few pictures, whatever the volume's size."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.inference import WindowPlan, translate_volume
from tests.pipeline.inference.conftest import CPU, member, source_of

SIDE = 96
PICTURE = SIDE * SIDE * 4


def resident(path):
    """Bytes of a mapped file that are in memory."""
    found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    return 1024 * sum(int(kb) for kb in found)


def mapped(path, dtype, shape):
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def peak(folder, slices, planes=("axial",), network=None):
    folder.mkdir()
    shape = (slices, SIDE, SIDE)
    stored, near = mapped(folder / "mr.npy", np.float32, shape), mapped(folder / "near.npy", np.bool_, shape)
    mask = mapped(folder / "mask.npy", np.uint8, shape)
    near[:], mask[:] = True, 1
    source = source_of(stored, mask, near)
    tracemalloc.start()
    maps = translate_volume(
        source, [network or member(lambda x: x)], WindowPlan(), lambda u: u, CPU, folder, planes=planes, mirrored=True
    )
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most, maps, folder / "mean.npy"


@pytest.mark.parametrize("planes", [("axial",), ("axial", "coronal")])
def test_twelve_times_the_slices_take_no_more_memory(tmp_path, planes):
    few, _, _ = peak(tmp_path / "few", 12, planes)
    many, maps, path = peak(tmp_path / "many", 144, planes)
    volume = 144 * PICTURE
    # Coronal pictures grow with the number of slices, since that is their height; volumes do not fit in either case.
    assert many < (few + 8 * PICTURE if planes == ("axial",) else volume), f"{few} and {many} bytes"
    assert maps.mean.nbytes == volume
    if Path("/proc/self/smaps").exists():
        assert resident(path) <= 40 * PICTURE, "pages of the maps are given back on the way"


def test_networks_of_three_dimensions_keep_sums_for_one_window_of_slices(tmp_path):
    network = member(lambda x: x, slices=8, dimensions=3)
    few, _, _ = peak(tmp_path / "few", 24, network=network)
    many, maps, path = peak(tmp_path / "many", 144, network=network)
    assert many < few + 8 * PICTURE, f"{few} and {many} bytes"
    if Path("/proc/self/smaps").exists():
        assert resident(path) <= 40 * PICTURE
    assert not maps.mean.any()
