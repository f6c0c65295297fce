import numpy as np

from pipeline.ingest.volume_memory import BLOCKS, VolumeMemory


def _place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_nothing_of_an_array_is_held():
    memory = VolumeMemory()
    first = memory.empty((4, 5), np.int16)
    place, part = _place(first), first.T[1:]
    del first
    second = memory.empty((4, 5), np.int16)
    assert _place(second) != place, "a part of the first array is still held"
    del part
    places = set()
    for _ in range(3 * BLOCKS):
        array = memory.empty((4, 5), np.int16)
        places.add(_place(array))
    assert len(places) <= BLOCKS


def test_arrays_held_at_one_time_never_overlap():
    memory = VolumeMemory()
    held = [memory.empty((3, number + 1), np.int16) for number in range(2 * BLOCKS)]
    for number, array in enumerate(held):
        array[...] = number
    for number, array in enumerate(held):
        assert (array == number).all()
        assert array.shape == (3, number + 1)
        assert array.dtype == np.int16


def test_a_larger_array_gets_a_larger_block_and_leaves_the_others_alone():
    memory = VolumeMemory()
    small = memory.empty((10,), np.int16)
    small[...] = 7
    large = memory.empty((100_000,), np.int16)
    large[...] = 9
    assert (small == 7).all()
    assert memory.empty((0, 3), np.int16).shape == (0, 3)
