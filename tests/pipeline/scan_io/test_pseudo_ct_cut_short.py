"""A series whose writing is cut short, by a full disk or a kill, at any file: nothing under its final name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.geometry import Geometry
from pipeline.scan_io import Algorithm, SourceSeries, dicom_write, write_pseudo_ct_series

SLICES = 4
GRID = Geometry((5, 6, SLICES), np.diag([-1.0, -1.0, 2.0, 1.0]))
SOURCE = SourceSeries("PHANTOM-001", "2.25.1", "2.25.2", "2.25.3", ("2.25.4",), "HFS")
HU = np.arange(5 * 6 * SLICES).reshape(5, 6, SLICES) - 100


def write(folder: Path, hu: np.ndarray = HU) -> list[Path]:
    return write_pseudo_ct_series(folder, hu, GRID, SOURCE, Algorithm("mr_to_ct", "1", "phantoms"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("number", range(1, SLICES + 1))
@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_at_any_slice_leaves_the_older_series_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, older: bool
) -> None:
    final = tmp_path / "ct"
    if older:
        write(final, HU + 1)
    before = content(final) if older else {}
    plain = dicom_write._write_file

    def full(path: Path, header: object, pixels: object) -> None:
        plain(path, header, pixels)  # type: ignore[arg-type]
        if path.name == f"{number:04d}.dcm":
            path.write_bytes(path.read_bytes()[:700])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(dicom_write, "_write_file", full)
        with pytest.raises(OSError, match="No space left"):
            write(final)
    assert (content(final) if final.exists() else {}) == before
    assert [path.name for path in tmp_path.iterdir()] == (["ct"] if older else [])
    assert len(write(final)) == SLICES


def test_a_slice_that_the_disk_kept_otherwise_is_not_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dicom_write._write_file

    def flipped_bit(path: Path, header: object, pixels: object) -> None:
        plain(path, header, pixels)  # type: ignore[arg-type]
        if path.name == "0003.dcm":
            stored = bytearray(path.read_bytes())
            stored[-1] ^= 1
            path.write_bytes(stored)

    monkeypatch.setattr(dicom_write, "_write_file", flipped_bit)
    with pytest.raises(Exception, match="slice 3 differs in 1 pixels"):
        write(tmp_path / "ct")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_pseudo_ct_cut_short as case
from pipeline import files
from pipeline.scan_io import dicom_write, pseudo_ct

def die_after(owner, name, calls):
    plain, count = getattr(owner, name), [0]
    def dying(*args, **kwargs):
        result = plain(*args, **kwargs)
        count[0] += 1
        if count[0] == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, dying)

places = [(dicom_write, "_write_file", number) for number in range(1, case.SLICES + 1)]
places += [(pseudo_ct, "check_written_series", 1), (files, "flush_tree", 1)]
for number, place in enumerate(places):
    root = Path(sys.argv[1]) / str(number)
    root.mkdir()
    child = os.fork()
    if not child:
        die_after(*place)
        case.write(root / "ct")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, (place, status)
    assert not (root / "ct").exists(), place
    assert (root / "ct.partial").exists(), place
    case.write(root / "ct")
    assert sorted(path.name for path in root.iterdir()) == ["ct"], place
    assert len(list((root / "ct").iterdir())) == case.SLICES
print("places", len(places))
"""


def test_a_kill_after_any_file_leaves_nothing_under_the_final_name_and_the_next_run_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"places {SLICES + 2}"
