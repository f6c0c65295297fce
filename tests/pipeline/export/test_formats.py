"""Every format of lesion images, read back by readers that are not ours, and by our own ingest."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pydicom
import pytest

from pipeline.catalog import Catalog, read_catalog
from pipeline.export.stage import EXPORTS, export_lesions
from pipeline.ingest.stage import ingest
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.settings_loading import validate
from pipeline.workspace import Workspace

Records = Callable[[bool], dict[str, StageRecord]]
PLAIN = ["cyst (left)", "glioma", "Größe 2"]
"""Classes that an ingest accepts, two of which are no safe names of folders."""


@pytest.fixture
def classes() -> list[str]:
    return PLAIN


def _settings(name: str, **more: Any) -> RunSettings:
    return validate({"export": {"format": name, **more}}, "a test")


def _exported(workspace: Workspace, records: dict[str, StageRecord], name: str, **more: Any) -> Path:
    inputs = [records[stage] for stage in ("prepare_lesions", "synthesize_lesions", "evaluate_lesions")]
    record = export_lesions(workspace, _settings(name, **more), *inputs)
    return record.path(workspace.root) / "dataset"


def _sources(workspace: Workspace, records: dict[str, StageRecord]) -> dict[str, npt.NDArray[np.float64]]:
    """Network units of real and synthetic images, clipped as every format has to."""
    stages = {"real": "prepare_lesions", "synthetic": "synthesize_lesions"}
    arrays = {origin: np.load(records[stage].path(workspace.root) / "images.npy") for origin, stage in stages.items()}
    return {origin: np.clip(array[:, 0] / 16384, -1, 1) for origin, array in arrays.items()}


def _real_counts(workspace: Workspace, records: dict[str, StageRecord]) -> Counter[tuple[str, str]]:
    table = pl.read_parquet(records["prepare_lesions"].path(workspace.root) / "images.parquet")
    return Counter(zip(table["split"], table["lesion_class"], strict=True))


def _ingested(tmp_path: Path, source: Path) -> Catalog:
    workspace = Workspace.open(tmp_path / "again", identity_key=bytes(range(32)))
    return read_catalog(ingest(workspace, RunSettings(), source).path(workspace.root))


def _catalog_counts(catalog: Catalog) -> Counter[tuple[str, str]]:
    table = catalog.lesions.join(catalog.series.select("series_id", "published_split"), on="series_id")
    return Counter(zip(table["published_split"], table["lesion_class"], strict=True))


@pytest.mark.parametrize("name", list(EXPORTS))
@pytest.mark.parametrize("blocked", [False, True])
def test_the_gate_decides_in_every_format(
    workspace: Workspace, lesion_records: Records, name: str, blocked: bool
) -> None:
    dataset = _exported(workspace, lesion_records(blocked), name)
    metadata = pl.read_csv(dataset / "metadata.csv")
    made = metadata.filter(pl.col("origin") == "synthetic")
    assert metadata.height - made.height == 18
    assert made.height == (0 if blocked else 7)
    assert set(made["split"]) <= {"train"}
    assert json.loads((dataset / "data_card.json").read_text())["gate"]["blocked"] is blocked


@pytest.mark.parametrize("name", list(EXPORTS))
def test_an_override_is_stamped_on_the_card_of_every_format(
    workspace: Workspace, lesion_records: Records, name: str
) -> None:
    dataset = _exported(workspace, lesion_records(True), name, release_override="phantoms only, no patients")
    assert "OVERRIDDEN" in (dataset / "data_card.md").read_text()
    assert pl.read_csv(dataset / "metadata.csv").filter(pl.col("origin") == "synthetic").height == 7


@pytest.mark.parametrize("name", list(EXPORTS))
def test_every_synthetic_image_names_its_weights_its_seed_and_its_condition(
    workspace: Workspace, lesion_records: Records, name: str
) -> None:
    dataset = _exported(workspace, lesion_records(False), name)
    made = pl.read_csv(dataset / "metadata.csv").filter(pl.col("origin") == "synthetic")
    assert set(made["model_sha256"]) == {"ab" * 32}
    assert sorted(seed - 2**40 for seed in made["seed"]) == [0, 2, 3, 5, 6, 7, 8]
    assert Counter(made["lesion_class"]) == {PLAIN[0]: 2, PLAIN[1]: 2, PLAIN[2]: 3}
    assert set(made["truncation"]) == {0.8}


@pytest.mark.parametrize("name", list(EXPORTS))
def test_members_of_an_ensemble_and_attributes_are_told_image_by_image(
    workspace: Workspace, lesion_records: Records, name: str
) -> None:
    records = lesion_records(False)
    table = records["synthesize_lesions"].path(workspace.root) / "cohort.parquet"
    digests = [f"e{row % 2}" * 32 for row in range(9)]
    columns = {"model_sha256": digests, "attribute_size_mm": [None, *range(8)], "attribute_sequence": ["T1"] * 9}
    pl.read_parquet(table).with_columns(**{key: pl.Series(values) for key, values in columns.items()}).write_parquet(
        table
    )
    dataset = _exported(workspace, records, name)
    made = pl.read_csv(dataset / "metadata.csv").filter(pl.col("origin") == "synthetic")
    for row in made.iter_rows(named=True):
        number = row["seed"] - 2**40
        assert row["model_sha256"] == digests[number]
        size = {} if number == 0 else {"size_mm": number - 1}
        assert json.loads(row["attributes"]) == {"sequence": "T1"} | size


@pytest.mark.parametrize("name", list(EXPORTS))
def test_equal_inputs_give_equal_bytes(workspace: Workspace, lesion_records: Records, name: str) -> None:
    records = lesion_records(False)
    first = _exported(workspace, records, name)
    before = {path.name: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    shutil.rmtree(first.parent)
    again = _exported(workspace, records, name)
    assert {path.name: path.read_bytes() for path in again.rglob("*") if path.is_file()} == before


def test_numpy_reads_the_archive_and_finds_real_images_under_the_names_of_medmnist_and_synthetic_ones_apart(
    workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    dataset = _exported(workspace, records, "medmnist_npz")
    archive = np.load(dataset / "lesions.npz", allow_pickle=False)
    names = json.loads((dataset / "lesions.json").read_text())
    assert {name: archive[f"{name}_images"].shape for name in ("train", "val", "test", "synthetic")} == {
        "train": (9, 16, 16), "val": (3, 16, 16), "test": (6, 16, 16), "synthetic": (7, 16, 16)
    }  # fmt: skip
    sources = _sources(workspace, records)
    metadata = pl.read_csv(dataset / "metadata.csv")
    table = pl.read_parquet(records["prepare_lesions"].path(workspace.root) / "images.parquet")
    source_rows = {lesion: row for row, lesion in enumerate(table["lesion_id"])}
    for row in metadata.iter_rows(named=True):
        pixels = archive[row["array"]][row["index"]]
        label = archive[row["array"].replace("images", "labels")][row["index"]]
        assert pixels.dtype == np.uint8
        assert label.shape == (1,)
        assert names[str(label[0])] == row["lesion_class"]
        source = source_rows[row["lesion_id"]] if row["origin"] == "real" else row["seed"] - 2**40
        assert np.abs(pixels / 127.5 - 1 - sources[row["origin"]][source]).max() <= 1 / 254
    assert set(archive["synthetic_seeds"]) == set(metadata["seed"].drop_nulls())


def test_the_archive_holds_the_channels_of_several_sequences_last(
    workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    folders = [records[name].path(workspace.root) for name in ("prepare_lesions", "synthesize_lesions")]
    for folder in folders:
        grey = np.load(folder / "images.npy")
        np.save(folder / "images.npy", np.concatenate([grey, grey[:, :, ::-1]], axis=1))
    dataset = _exported(workspace, records, "medmnist_npz")
    archive = np.load(dataset / "lesions.npz", allow_pickle=False)
    for name in ("train", "val", "test", "synthetic"):
        images = archive[f"{name}_images"]
        assert images.shape[1:] == (16, 16, 2)
        assert np.array_equal(images[..., 0], images[:, ::-1, :, 1])


def test_pydicom_reads_what_is_synthetic_and_what_is_not(workspace: Workspace, lesion_records: Records) -> None:
    records = lesion_records(False)
    dataset = _exported(workspace, records, "dicom_sc")
    sources = _sources(workspace, records)
    metadata = pl.read_csv(dataset / "metadata.csv")
    assert {path.relative_to(dataset).as_posix() for path in dataset.rglob("*.dcm")} == set(metadata["file"])
    uids = set()
    for row in metadata.iter_rows(named=True):
        found = pydicom.dcmread(dataset / row["file"])
        assert found.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        synthetic = row["origin"] == "synthetic"
        assert found[0x0008, 0x001C].value == ("YES" if synthetic else "NO")
        assert found.ConversionType == ("SYN" if synthetic else "WSD")
        unit = found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)
        source = int(Path(row["file"]).stem.rsplit("_", 1)[1])
        assert np.abs(unit - sources[row["origin"]][source]).max() <= 1 / 32768
        told = json.loads(found.ImageComments)
        assert told == {key: value for key, value in row.items() if key != "file"}
        assert (found.PatientID == row["subject_id"]) is not synthetic
        assert (found.get("PatientIdentityRemoved") == "YES") is not synthetic
        if synthetic:
            assert f"seed {row['seed']}" in found.DerivationDescription
            assert row["model_sha256"] in found.DerivationDescription
        uids.add(str(found.SOPInstanceUID))
    assert len(uids) == metadata.height


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
def test_the_validator_finds_no_error_but_the_attribute_that_it_does_not_know(
    workspace: Workspace, lesion_records: Records
) -> None:
    dataset = _exported(workspace, lesion_records(False), "dicom_sc")
    for origin in ("real", "synthetic"):
        path = next((dataset / origin).rglob("*.dcm"))
        result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        lines = (result.stdout + result.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == [
            "Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute"
        ]


@pytest.mark.parametrize("origin", ["real", "synthetic"])
def test_an_ingest_of_the_image_folder_finds_the_same_classes_splits_and_subjects(
    tmp_path: Path, workspace: Workspace, lesion_records: Records, origin: str
) -> None:
    records = lesion_records(False)
    catalog = _ingested(tmp_path, _exported(workspace, records, "image_folder") / origin)
    assert catalog.quarantine.is_empty()
    if origin == "real":
        assert _catalog_counts(catalog) == _real_counts(workspace, records)
        assert catalog.series["subject_id"].n_unique() == 18
    else:
        assert _catalog_counts(catalog) == {("train", PLAIN[0]): 2, ("train", PLAIN[1]): 2, ("train", PLAIN[2]): 3}


def test_an_ingest_of_the_archive_finds_the_same_classes_and_splits_of_real_images_and_no_synthetic_one(
    tmp_path: Path, workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    catalog = _ingested(tmp_path, _exported(workspace, records, "medmnist_npz") / "lesions.npz")
    assert catalog.quarantine.is_empty()
    assert _catalog_counts(catalog) == _real_counts(workspace, records)
