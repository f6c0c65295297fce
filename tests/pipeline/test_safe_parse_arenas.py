"""Memory shared with the parsing process: what lies in it, when it is lent again, and that it cannot be shrunk."""

import gc
import os

import numpy as np
import pytest

from pipeline.ingest.scan_parsers import read_headers, read_planned_volume
from pipeline.phantom import phantom_subject
from pipeline.safe_parse import Limits, parse_all
from pipeline.safe_parse.arenas import ARENA_BYTES, ARENAS, NONE, Arenas, LentArenas, lent
from pipeline.safe_parse.wire import pack
from pipeline.scan_io import Acquisition, SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.read_volume import read_volume
from pipeline.scan_io.dicom.volume_plan import DicomPolicy

LIMITS = Limits(timeout_s=60, memory_mb=1400)


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Six series of different voxels."""
    folder = tmp_path_factory.mktemp("series")
    voxels = phantom_subject(0, 0, "HEAD").mr.astype(np.int16)
    for number in range(6):
        identity = SeriesIdentity(f"p{number}", *(uid_from(f"p{number}", word) for word in ("st", "se", "fr")))
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        write_dicom_series(folder / str(number), voxels + number, affine, "MR", identity, Acquisition("arena"))
    paths = tuple(sorted(folder.rglob("*.dcm")))
    return group_headers(list(zip(paths, read_headers(paths), strict=True)), DicomPolicy()).plans


def test_volumes_cross_whole_and_stay_whole_however_many_are_held(plans):
    assert len(plans) > ARENAS
    outcomes = list(parse_all(read_planned_volume, plans, LIMITS))
    for outcome, plan in zip(outcomes, plans, strict=True):
        np.testing.assert_array_equal(outcome.result.voxels, read_volume(plan).voxels)
        assert outcome.result.voxels.flags.f_contiguous
    assert len({int(outcome.result.voxels.sum()) for outcome in outcomes}) == len(plans)


def test_a_consumer_that_lets_go_is_served_from_the_same_memory(plans):
    places = set()
    for outcome in parse_all(read_planned_volume, plans, LIMITS):
        places.add(outcome.result.voxels.__array_interface__["data"][0])
    assert len(places) <= ARENAS


def test_an_area_is_free_again_when_it_is_settled_and_nothing_of_it_is_held():
    arenas = Arenas()
    numbers = [arenas.lend() for _ in range(ARENAS + 1)]
    assert numbers == [*range(ARENAS), NONE]
    content = np.frombuffer(arenas.part(1, 64, 16), np.uint8)
    view = content[3:5]
    arenas.settle(1)
    arenas.settle(NONE)
    assert arenas.lend() == NONE
    del content
    gc.collect()
    assert arenas.lend() == NONE
    del view
    gc.collect()
    assert arenas.lend() == 1
    arenas.descriptors.close()


@pytest.mark.parametrize(
    ("number", "place", "size"),
    [(0, ARENA_BYTES, 1), (0, 0, ARENA_BYTES + 1), (0, 1, ARENA_BYTES), (ARENAS, 0, 1), (NONE, 0, 1), (0, NONE - 1, 8)],
)
def test_bytes_outside_of_an_area_are_refused(number, place, size):
    arenas = Arenas()
    with pytest.raises(ValueError, match="outside"):
        arenas.part(number, place, size)
    arenas.descriptors.close()


def test_the_parsing_process_cannot_change_the_size_of_an_area():
    arenas = Arenas()
    for size in (0, ARENA_BYTES // 2, 2 * ARENA_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(arenas.descriptors.numbers[0], size)
    arenas.descriptors.close()


def test_the_array_of_a_task_lies_in_its_area_and_is_seen_by_the_other_side():
    arenas = Arenas()
    child = LentArenas(arenas.descriptors.numbers)
    for number in (2, 0, 2):
        child.begin(number)
        first, second = child.empty((3, 5), np.int16), child.empty((4,), np.float32)
        first[...] = np.arange(15).reshape(3, 5) + number
        second[...] = 7.5
        head, _, *sent = pack((first.T, second), child.place_of)
        assert [bytes(part) for part in sent] == [second.tobytes()]
        places = np.frombuffer(head, "<u8")[1:].reshape(-1, 2).tolist()
        assert places[1:] == [[30, 0], [16, NONE]]
        seen = np.frombuffer(arenas.part(number, 0, 30), np.int16).reshape(3, 5)
        np.testing.assert_array_equal(seen, np.arange(15).reshape(3, 5) + number)
    arenas.descriptors.close()


def test_what_does_not_fit_gets_memory_of_its_own():
    arenas = Arenas()
    child = LentArenas(arenas.descriptors.numbers)
    child.begin(0)
    large = child.empty((ARENA_BYTES + 1,), np.uint8)
    assert child.place_of(large.data) == NONE
    assert child.place_of(child.empty((ARENA_BYTES,), np.uint8).data) == 0
    child.begin(NONE)
    assert child.place_of(child.empty((2,), np.uint8).data) == NONE
    arenas.descriptors.close()


def test_no_more_address_space_is_taken_than_one_area():
    arenas = Arenas()
    child = LentArenas(arenas.descriptors.numbers)
    for number, share in ((0, 2), (1, 2), (2, 2), (0, 1), (1, 8), (2, 4), (1, 4)):
        child.begin(number)
        array = child.empty((ARENA_BYTES // share,), np.uint8)
        assert child.place_of(array.data) == 0
        assert sum(map(len, child._memory.values())) <= ARENA_BYTES
    arenas.descriptors.close()


def test_outside_of_a_parsing_process_there_is_ordinary_memory():
    array = lent().empty((2, 3), np.int16)
    assert (array.shape, array.dtype, lent().place_of(array.data)) == ((2, 3), np.int16, NONE)
