import os

import pytest

from pipeline.deidentify import Pseudonymizer
from pipeline.ingest.file_index import INDEX_FILE, FileIndex, contents, fingerprint
from pipeline.ingest.source_tree import walk
from pipeline.ingest.watching import look
from pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "work")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.nii").write_bytes(b"one")
    return folder


def settled(workspace, folder):
    return look(workspace, folder, look(workspace, folder, None)).fingerprint


def test_a_folder_that_still_changes_or_is_empty_has_no_fingerprint(workspace, folder, tmp_path):
    first = look(workspace, folder, None)
    assert first.fingerprint is None
    (folder / "b.nii").write_bytes(b"half a transfer")
    second = look(workspace, folder, first)
    assert second.fingerprint is None
    third = look(workspace, folder, second)
    assert third.fingerprint is not None
    assert look(workspace, folder, third) == third
    (tmp_path / "empty").mkdir()
    assert settled(workspace, tmp_path / "empty") is None


def test_a_touched_file_is_no_new_set_and_another_content_is(workspace, folder):
    before = settled(workspace, folder)
    os.utime(folder / "a.nii", (1, 1))
    assert settled(workspace, folder) == before
    (folder / "a.nii").write_bytes(b"two")
    assert settled(workspace, folder) != before


def test_it_is_the_hash_that_an_ingest_has_in_its_key(workspace, folder):
    tree = walk(folder, leave_out=workspace.root)
    indexed = FileIndex(workspace.identity / INDEX_FILE).update(tree)
    expected = fingerprint(contents(tree, indexed), Pseudonymizer(workspace.identity_key()))
    assert settled(workspace, folder) == expected
