import hashlib
import os
import stat
import time

import pytest

from pipeline.deidentify import Pseudonymizer
from pipeline.ingest import file_index
from pipeline.ingest.file_index import UNREADABLE, FileIndex, fingerprint
from pipeline.ingest.source_tree import walk

PSEUDONYMS = Pseudonymizer(b"k" * 32)


@pytest.fixture
def tree_root(tmp_path):
    root = tmp_path / "input"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def reads(monkeypatch):
    """Files that were read, and a clock far enough ahead for their times to be trusted."""
    seen = []
    real, clock = file_index._sha256, time.time_ns
    monkeypatch.setattr(file_index, "_sha256", lambda path: seen.append(path.name) or real(path))
    monkeypatch.setattr(file_index.time, "time_ns", lambda: clock() + 10**10)
    return seen


def test_hashes_are_those_of_the_contents(tmp_path, tree_root):
    hashes = FileIndex(tmp_path / "i.sqlite").hashes(walk(tree_root).files)
    assert hashes == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")}
    assert stat.S_IMODE(os.stat(tmp_path / "i.sqlite").st_mode) == 0o600


def test_an_unchanged_file_is_not_read_again(tmp_path, tree_root, reads):
    first = FileIndex(tmp_path / "i.sqlite").hashes(walk(tree_root).files)
    assert FileIndex(tmp_path / "i.sqlite").hashes(walk(tree_root).files) == first
    assert reads == ["a", "b"]


def test_a_change_that_keeps_size_and_modification_time_is_noticed(tmp_path, tree_root, reads):
    index = FileIndex(tmp_path / "i.sqlite")
    before = index.hashes(walk(tree_root).files)
    times = os.stat(tree_root / "a")
    time.sleep(0.02)
    (tree_root / "a").write_bytes(b"z")
    os.utime(tree_root / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = index.hashes(walk(tree_root).files)
    assert before["a"] != after["a"]
    assert reads == ["a", "b", "a"]


def test_fresh_files_are_not_trusted_yet(tmp_path, tree_root, monkeypatch):
    seen = []
    real = file_index._sha256
    monkeypatch.setattr(file_index, "_sha256", lambda path: seen.append(path.name) or real(path))
    index = FileIndex(tmp_path / "i.sqlite")
    index.hashes(walk(tree_root).files)
    index.hashes(walk(tree_root).files)
    assert seen == ["a", "b", "a", "b"]


def test_a_file_that_vanished_is_marked(tmp_path, tree_root):
    files = walk(tree_root).files
    (tree_root / "b").unlink()
    assert FileIndex(tmp_path / "i.sqlite").hashes(files)["b"] == UNREADABLE


def test_the_fingerprint_depends_on_names_and_contents_and_not_on_order():
    assert fingerprint({"a": "1", "b": "2"}, PSEUDONYMS) == fingerprint({"b": "2", "a": "1"}, PSEUDONYMS)
    others = [{"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "2", "b": "1"}]
    assert len({fingerprint(hashes, PSEUDONYMS) for hashes in [{"a": "1", "b": "2"}, *others]}) == 5
