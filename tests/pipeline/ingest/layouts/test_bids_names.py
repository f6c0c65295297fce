from pathlib import Path

import pytest

from pipeline.ingest.layouts import bids_ignore
from pipeline.ingest.layouts.bids_names import bids_file, entities_and_suffix
from pipeline.ingest.source_tree import SourceTree, walk


def _tree(root: Path, name: str, content: str = "") -> SourceTree:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return walk(root)


def _file(root: Path, name: str):
    return next(file for file in _tree(root, name).files if file.name == name)


def test_entities_are_read_and_odd_names_are_none():
    assert entities_and_suffix("sub-01_ses-x_acq-a_T1w") == ({"sub": "01", "ses": "x", "acq": "a"}, "T1w")
    for stem in ("sub-01_", "sub-_T1w", "sub-01_sub-02_T1w", "sub_T1w", "sub-01__T1w", "sub-01_a.b_T1w"):
        assert entities_and_suffix(stem) is None, stem


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01/anat/sub-01_T1w.nii", ("01", None, "anat", "T1w", False)),
        ("sub-01/ses-1/func/sub-01_ses-1_task-x_bold.nii.gz", ("01", "1", "func", "bold", False)),
        ("derivatives/p/sub-01/anat/sub-01_mask.nii.gz", ("01", None, "anat", "mask", True)),
        ("derivatives/sub-01_mask.nii.gz", None),
        ("sourcedata/sub-01/anat/sub-01_T1w.nii", None),
        ("x/sub-01/anat/sub-01_T1w.nii", None),
        ("sub-01_T1w.nii", None),
        ("sub-01/anat/sub-01_T1w.json", None),
        ("sub-01/other/sub-01_T1w.nii", ("01", None, None, "T1w", False)),
    ],
)
def test_a_file_is_known_by_its_name_and_place(tmp_path, name, expected):
    found = bids_file(_file(tmp_path, name))
    told = found and (found.subject, found.session, found.data_type, found.suffix, found.derived)
    assert told == expected


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["*_bad.nii.gz"], ["a_bad.nii.gz", "sub-01/anat/x_bad.nii.gz"], ["sub-01/anat/x_T1w.nii.gz"]),
        (["sub-02/"], ["sub-02/anat/a.nii", "x/sub-02/a.nii"], ["sub-02", "sub-021/a.nii"]),
        (["/sub-02"], ["sub-02/a.nii"], ["x/sub-02/a.nii"]),
        (["sub-*/extra/*.nii"], ["sub-1/extra/a.nii"], ["sub-1/extra/b/a.nii", "x/sub-1/extra/a.nii"]),
        (["**/extra/**"], ["extra/a", "a/b/extra/c/d"], ["a/extras/b"]),
        (["# *", "", "*.nii", "!keep*.nii"], ["a/b.nii"], ["a/keep1.nii", "b.json"]),
        (["run-[12]_x?.nii"], ["run-1_xa.nii", "a/run-2_xb.nii"], ["run-3_xa.nii", "run-1_x.nii"]),
        (["run-[!1].nii"], ["run-2.nii"], ["run-1.nii"]),
        (["a.b"], ["a.b", "a.b/c"], ["axb"]),
        (["[", "*" * 3 + "a*" * 50], [], ["a" * 60, "x"]),
    ],
)
def test_ignored_files_are_told_as_git_tells_them(tmp_path, monkeypatch, lines, ignored, kept):
    monkeypatch.setattr(bids_ignore, "FILE_NAME", "plain")
    is_ignored = bids_ignore.ignored_by(_tree(tmp_path, "plain", "\n".join(lines)))
    assert [name for name in ignored if not is_ignored(name)] == []
    assert [name for name in kept if is_ignored(name)] == []


def test_nothing_is_ignored_without_the_file(tmp_path):
    assert not bids_ignore.ignored_by(_tree(tmp_path, "a"))("a")
