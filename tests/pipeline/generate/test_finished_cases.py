import numpy as np
import polars as pl
import pytest

from pipeline.errors import ResourceError
from pipeline.files import folder_manifest
from pipeline.generate import pseudo_ct
from pipeline.generate.finished_cases import FinishedCases
from pipeline.generate.stage import translate_mr_to_ct
from pipeline.intensity import CT_MAP
from pipeline.settings import RunSettings
from pipeline.translated_case import maps

AFFINE = np.diag([3.0, 2.5, 5.0, 1.0])
SHAPE = (10, 12, 5)
CASE = {"series_id": "mr-a", "mr_affine": [0.1, 1 / 3], "dicom_folder": None}


def write(folder, name, content="x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_a_finished_case_is_known_again_and_the_rest_is_swept(tmp_path):
    cases = FinishedCases(tmp_path)
    write(tmp_path, "a/1.dcm")
    cases.finish("a", CASE)
    write(tmp_path, "b/1.dcm")
    write(tmp_path, "b/2.dcm.partial")
    again = FinishedCases(tmp_path)
    assert again.finished("a") == CASE
    assert again.finished("b") is None
    assert not (tmp_path / "b").exists()
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_case_whose_files_changed_is_made_again(tmp_path, damage):
    cases = FinishedCases(tmp_path)
    write(tmp_path, "a/1.dcm")
    write(tmp_path, "a/2.dcm")
    cases.finish("a", CASE)
    write(tmp_path, "c/1.dcm")
    cases.finish("c", CASE)
    write(tmp_path, "a/2.dcm", "y") if damage == "changed" else (tmp_path / "a/2.dcm").unlink()
    again = FinishedCases(tmp_path)
    assert again.finished("a") is None
    assert again.finished("c") == CASE
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..\\a", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="no file name"):
        FinishedCases(tmp_path).finish(name, CASE)


class Killed(BaseException):
    """Ends a run as a signal would: nothing of ours catches it."""


def translated(world):
    settings = RunSettings.model_validate({"device": "cpu"})
    records = world.records()
    record = translate_mr_to_ct(world.workspace, settings, records["catalog"], records["prepared"], records["trained"])
    return record.path(world.workspace.root)


def fill(world):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        world.add(name, CT_MAP.encode(rng.integers(-1000, 2000, SHAPE)), AFFINE, SHAPE, AFFINE)


def breaking(monkeypatch, calls, error):
    """Translation of the nth volume ends with an error; returns the list of volumes that were begun."""
    plain, begun = maps.translate_volume, []

    def translate(*args, **kwargs):
        begun.append(len(begun))
        if len(begun) == calls:
            raise error
        return plain(*args, **kwargs)

    monkeypatch.setattr(maps, "translate_volume", translate)
    return begun


def test_a_killed_translation_goes_on_and_ends_with_the_same_files(world, tmp_path, monkeypatch):
    fill(world)
    twin = type(world)(tmp_path / "twin")
    fill(twin)
    whole = folder_manifest(translated(twin), frozenset({"runtime.json", "record.json"}))
    breaking(monkeypatch, 3, Killed())
    with pytest.raises(Killed):
        translated(world)
    names = {path.name for path in (world.workspace.root / "translate_mr_to_ct").iterdir()}
    assert all(name.endswith(".partial") for name in names), names
    monkeypatch.undo()
    begun = breaking(monkeypatch, 99, Killed())
    folder = translated(world)
    assert len(begun) == 1, "two of three cases were finished"
    assert folder_manifest(folder, frozenset({"runtime.json", "record.json"})) == whole
    assert not list((world.workspace.root / "translate_mr_to_ct").glob("*.partial"))
    assert pl.read_parquet(folder / "cases.parquet").height == 3


def test_a_full_disk_in_the_middle_of_a_series_is_told_and_the_next_run_goes_on(world, monkeypatch):
    fill(world)
    plain, written = pseudo_ct.write_pseudo_ct_series, []

    def full(*args, **kwargs):
        written.append(args[0])
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return plain(*args, **kwargs)

    monkeypatch.setattr(pseudo_ct, "write_pseudo_ct_series", full)
    with pytest.raises(ResourceError, match="needs space") as caught:
        translated(world)
    assert caught.value.found == "No space left on device"
    assert "Free space" in caught.value.change
    folder = translated(world)
    assert len(written) == 4, "the first series was kept, the second written again"
    assert len(list(folder.rglob("*.dcm"))) == 3 * SHAPE[2]
