import os

import pytest

from pipeline.errors import InputError
from pipeline.ingest.source_tree import looks_dicom, open_regular, walk


def test_regular_files_are_listed_by_relative_name_in_order(tmp_path):
    for name in ("b/2.dcm", "a.png", "b/c/1.nii.gz", ".hidden/x.dcm", "b/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    tree = walk(tmp_path)
    assert [file.name for file in tree.files] == ["a.png", "b/2.dcm", "b/c/1.nii.gz"]
    assert tree.hidden == 2
    deepest = tree.named()["b/c/1.nii.gz"]
    assert (deepest.suffix, deepest.stem, deepest.folder, deepest.size) == (".nii.gz", "1", "b/c", 2)


def test_links_and_special_files_are_refused_and_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"secret")
    inside = tmp_path / "input"
    inside.mkdir()
    (inside / "scan.dcm").write_bytes(b"x")
    (inside / "file-link.dcm").symlink_to(outside / "secret.dcm")
    (inside / "folder-link").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    os.mkfifo(inside / "pipe.dcm")
    tree = walk(inside)
    assert [file.name for file in tree.files] == ["scan.dcm"]
    assert {item.names[0]: item.error.reason for item in tree.refused} == {
        "file-link.dcm": "LINK", "folder-link": "LINK", "loop": "LINK", "pipe.dcm": "SPECIAL_FILE",
    }  # fmt: skip


def test_a_file_that_becomes_a_link_after_the_listing_is_not_opened(tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 128 + b"DICM" + b"x")
    (tmp_path / "input").mkdir()
    (tmp_path / "input/scan").write_bytes(b"\0" * 128 + b"DICM" + b"x")
    (file,) = walk(tmp_path / "input").files
    assert looks_dicom(file)
    file.path.unlink()
    file.path.symlink_to(tmp_path / "secret")
    assert not looks_dicom(file)
    with pytest.raises(OSError):
        open_regular(file.path)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        open_regular(tmp_path / "pipe")


def test_names_that_are_no_utf8_can_be_hashed(tmp_path):
    (tmp_path / os.fsdecode(b"scan\xff.dcm")).write_bytes(b"x")
    (file,) = walk(tmp_path).files
    assert file.name == "scan\\xff.dcm"
    file.name.encode()


def test_the_workspace_below_the_input_is_left_out(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/volume.nii").write_bytes(b"x")
    assert [file.name for file in walk(tmp_path, leave_out=tmp_path / "work").files] == ["scan.nii"]


def test_a_single_file_brings_the_json_beside_it_and_nothing_else(tmp_path):
    for name in ("set.npz", "set.json", "other.npz"):
        (tmp_path / name).write_bytes(b"{}")
    assert [file.name for file in walk(tmp_path / "set.npz").files] == ["set.json", "set.npz"]


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: (path / "a").mkdir(parents=True)]
)
def test_an_input_without_files_is_refused_without_naming_paths(tmp_path, make):
    path = tmp_path / "Jane-Roe"
    make(path)
    with pytest.raises(InputError) as caught:
        walk(path)
    assert "Jane" not in str(caught.value)
    assert "--input" in caught.value.change
