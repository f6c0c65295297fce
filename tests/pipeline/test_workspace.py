import multiprocessing
import os
import stat

import pytest

from pipeline.errors import WorkspaceError
from pipeline.files import write_json
from pipeline.workspace import Workspace


def test_identity_is_private_and_its_key_stays(tmp_path):
    first = Workspace.open(tmp_path / "w")
    assert stat.S_IMODE(os.stat(first.identity).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(first.identity / "key").st_mode) == 0o600
    assert Workspace.open(tmp_path / "w").identity_key() == first.identity_key()
    assert len(first.identity_key()) == 32


def test_two_workspaces_have_two_keys(tmp_path):
    assert Workspace.open(tmp_path / "a").identity_key() != Workspace.open(tmp_path / "b").identity_key()


def test_a_given_key_is_used_for_a_new_workspace_only(tmp_path):
    key = bytes(range(32))
    assert Workspace.open(tmp_path / "w", key).identity_key() == key
    assert Workspace.open(tmp_path / "w", bytes(32)).identity_key() == key


def test_a_folder_with_other_things_is_no_workspace(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="empty"):
        Workspace.open(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("content", [{"format_version": 99}, {}, []])
def test_another_format_version_is_refused(tmp_path, content):
    write_json(tmp_path / "workspace.json", content)
    with pytest.raises(WorkspaceError, match="format"):
        Workspace.open(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("", encoding="utf-8")
    with pytest.raises(WorkspaceError) as caught:
        Workspace.open(blocker / "w")
    assert str(blocker) in caught.value.found
    assert caught.value.exit_code == 4


def _hold(root, ready, release):
    with Workspace.open(root).locked():
        ready.set()
        release.wait(20)


def test_one_run_at_a_time_and_the_lock_dies_with_its_process(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready, release = context.Event(), context.Event()
    workspace = Workspace.open(tmp_path / "w")
    holder = context.Process(target=_hold, args=(tmp_path / "w", ready, release))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(WorkspaceError, match=f"process {holder.pid}"), workspace.locked():
        pass
    holder.kill()
    holder.join()
    with workspace.locked():
        pass
