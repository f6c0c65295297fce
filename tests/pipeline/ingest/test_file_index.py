import hashlib
import os
import stat
import time
from dataclasses import replace

import pytest

from pipeline.deidentify import Pseudonymizer
from pipeline.ingest import file_index
from pipeline.ingest.file_index import INDEX_FILE, UNREADABLE, Changes, FileIndex, fingerprint
from pipeline.ingest.identity_removal import NO_TRACE, strip_databases
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
    monkeypatch.setattr(file_index, "_sha256", lambda path: seen.append(os.path.basename(path)) or real(path))
    monkeypatch.setattr(file_index.time, "time_ns", lambda: clock() + 10**10)
    return seen


def test_hashes_are_those_of_the_contents(tmp_path, tree_root):
    hashes = FileIndex(tmp_path / "i.sqlite").update(walk(tree_root)).hashes
    assert hashes == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")}
    assert stat.S_IMODE(os.stat(tmp_path / "i.sqlite").st_mode) == 0o600


def test_an_unchanged_file_is_not_read_again(tmp_path, tree_root, reads):
    first = FileIndex(tmp_path / "i.sqlite").update(walk(tree_root)).hashes
    assert FileIndex(tmp_path / "i.sqlite").update(walk(tree_root)).hashes == first
    assert reads == ["a", "b"]


def test_a_change_that_keeps_size_and_modification_time_is_noticed(tmp_path, tree_root, reads):
    index = FileIndex(tmp_path / "i.sqlite")
    before = index.update(walk(tree_root)).hashes
    times = os.stat(tree_root / "a")
    time.sleep(0.02)
    (tree_root / "a").write_bytes(b"z")
    os.utime(tree_root / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = index.update(walk(tree_root)).hashes
    assert before["a"] != after["a"]
    assert reads == ["a", "b", "a"]


def test_fresh_files_are_not_trusted_yet(tmp_path, tree_root, monkeypatch):
    seen = []
    real = file_index._sha256
    monkeypatch.setattr(file_index, "_sha256", lambda path: seen.append(os.path.basename(path)) or real(path))
    index = FileIndex(tmp_path / "i.sqlite")
    index.update(walk(tree_root))
    index.update(walk(tree_root))
    assert seen == ["a", "b", "a", "b"]


def test_a_file_that_vanished_is_marked(tmp_path, tree_root):
    tree = walk(tree_root)
    (tree_root / "b").unlink()
    assert FileIndex(tmp_path / "i.sqlite").update(tree).hashes["b"] == UNREADABLE


def test_new_changed_removed_and_unchanged_files_are_counted(tmp_path, tree_root, reads):
    index = FileIndex(tmp_path / "i.sqlite")
    assert index.update(walk(tree_root)).changes == Changes(new=2, changed=0, removed=0, unchanged=0)
    (tree_root / "a").write_bytes(b"other")
    (tree_root / "b").unlink()
    (tree_root / "c").write_bytes(b"c")
    (tree_root / "d").write_bytes(b"d")
    assert index.update(walk(tree_root)).changes == Changes(new=2, changed=1, removed=1, unchanged=0)
    os.utime(tree_root / "c")  # touched, with the same content
    assert index.update(walk(tree_root)).changes == Changes(new=0, changed=0, removed=0, unchanged=3)
    assert reads[-1] == "c"


def test_inputs_are_kept_apart(tmp_path, tree_root, reads):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_bytes(b"another a")
    index = FileIndex(tmp_path / "i.sqlite")
    first = index.update(walk(tree_root)).hashes
    second = index.update(walk(other))
    assert second.changes == Changes(new=1, changed=0, removed=0, unchanged=0)
    assert second.hashes["a"] != first["a"]
    assert index.update(walk(tree_root)).changes == Changes(new=0, changed=0, removed=0, unchanged=2)


def test_a_damaged_index_is_made_again(tmp_path, tree_root):
    path = tmp_path / "i.sqlite"
    before = FileIndex(path).update(walk(tree_root)).hashes
    path.write_bytes(b"no database " * 500)
    index = FileIndex(path)
    assert index.rebuilt
    assert index.update(walk(tree_root)).hashes == before
    assert not FileIndex(path).rebuilt


def test_forgotten_paths_leave_no_byte(tmp_path, tree_root):
    (tree_root / "MUELLER_1971").write_bytes(b"x")
    path = tmp_path / INDEX_FILE
    FileIndex(path).update(walk(tree_root))
    assert b"MUELLER_1971" in path.read_bytes()
    strip_databases(tmp_path, replace(NO_TRACE, names=frozenset({"MUELLER_1971"})))
    assert b"MUELLER_1971" not in path.read_bytes()
    assert FileIndex(path).update(walk(tree_root)).changes.new == 1


def test_the_fingerprint_depends_on_names_and_contents_and_not_on_order():
    assert fingerprint({"a": "1", "b": "2"}, PSEUDONYMS) == fingerprint({"b": "2", "a": "1"}, PSEUDONYMS)
    others = [{"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "2", "b": "1"}]
    assert len({fingerprint(hashes, PSEUDONYMS) for hashes in [{"a": "1", "b": "2"}, *others]}) == 5
