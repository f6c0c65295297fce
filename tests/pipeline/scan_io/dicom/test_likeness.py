"""What is remembered of one file of a series changes nothing of what is read from the next one."""

import os
import random
from pathlib import Path

import pytest

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom import plain, read_header
from pipeline.scan_io.dicom.likeness import KnownHeaders
from pipeline.scan_io.dicom.plain_layouts import Layouts

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent"))
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


def _forget(monkeypatch):
    monkeypatch.setattr(read_header, "_KNOWN", KnownHeaders())
    layouts = plain._LAYOUTS
    monkeypatch.setattr(plain, "_LAYOUTS", Layouts(layouts._wanted, layouts._fixed))


def _header(path):
    try:
        return read_header.read_header(path)
    except QuarantineError as error:
        return error.reason, error.found, error.advice


def _assert_nothing_changes(paths, monkeypatch):
    cold = []
    for path in paths:
        _forget(monkeypatch)
        cold.append(_header(path))
    _forget(monkeypatch)
    for _ in range(2):
        assert [_header(path) for path in paths] == cold
    return cold


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_headers_of_a_series_are_the_same_with_and_without_memory(files, monkeypatch, modality):
    paths = files.write("series", modality=modality)
    headers = _assert_nothing_changes(paths, monkeypatch)
    assert len({header.sop_instance_uid for header in headers}) == len(paths)
    assert len({header.frames[0].position for header in headers}) == len(paths)


@pytest.mark.parametrize("seed", range(8))
def test_damage_is_seen_where_the_file_before_was_sound(files, tmp_path, monkeypatch, seed):
    """A mutant among sound files of its series is read as it is read alone."""
    rng = random.Random(seed)  # noqa: S311
    sound = files.write("series", modality="MR" if seed % 2 else "CT")[0]
    content = sound.read_bytes()
    end = content.index(b"\xe0\x7f\x10\x00") + 12
    paths = []
    for number in range(60):
        mutant = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            mutant[rng.randrange(128, end)] = rng.choice((0, 1, 0x20, 0x31, 0x5C, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            del mutant[rng.randrange(end - 40, len(mutant)) :]
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(mutant)
        paths += [sound, path]
    outcomes = _assert_nothing_changes(paths, monkeypatch)
    assert len({str(outcome) for outcome in outcomes}) > 20


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder")
@pytest.mark.parametrize("folder", ["dicom_odd", "rtstruct", "deidentify"])
def test_real_headers_are_the_same_with_and_without_memory(monkeypatch, folder):
    paths = sorted(path for path in (DATA / folder).rglob("*") if path.is_file())
    assert paths
    _assert_nothing_changes(paths, monkeypatch)


def test_a_layout_is_found_again_only_where_every_head_agrees(files):
    first, second = files.write("series", modality="CT")[:2]
    wanted, fixed = plain._LAYOUTS._wanted, plain._LAYOUTS._fixed
    layouts = Layouts(wanted, fixed)
    content, other = first.read_bytes(), second.read_bytes()
    assert layouts.read(content) is None
    layouts.learn(content)
    found = layouts.read(content)
    assert content[found.offset - 12 : found.offset - 8] == b"\xe0\x7f\x10\x00"
    assert found.offset + found.length <= len(content)
    assert layouts.read(content[: found.offset]) == found
    assert layouts.read(content[: found.offset - 1]) is None
    syntax = content.index(b"1.2.840.10008.1.2.1\0")
    changed = content[:syntax] + b"1.2.840.10008.1.2.5\0" + content[syntax + 20 :]
    assert layouts.read(changed) is None
    if other[: found.offset - 12] != content[: found.offset - 12] and layouts.read(other) is not None:
        assert layouts.read(other).values != found.values


def test_layouts_that_nothing_shares_are_soon_no_longer_learnt(files):
    content = files.write("series", modality="CT")[0].read_bytes()
    layouts = Layouts(plain._LAYOUTS._wanted, plain._LAYOUTS._fixed)
    start = content.index(b"\x08\x00\x18\x00UI") + 8
    rest = content[start + int.from_bytes(content[start - 2 : start], "little") :]
    for length in range(2, 202, 2):
        layouts.learn(content[: start - 2] + length.to_bytes(2, "little") + b"1" * length + rest)
    assert len(layouts._layouts) == 8
    assert layouts._in_vain == 100
