import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from skimage.io import imread

from pipeline.errors import InputError
from pipeline.export.stage import EXPORTS, export_lesions
from pipeline.records import StageRecord
from pipeline.settings import ExportSettings, RunSettings
from pipeline.workspace import Workspace

Records = Callable[[bool], dict[str, StageRecord]]


def exported(workspace: Workspace, records: dict[str, StageRecord]) -> tuple[StageRecord, Path]:
    record = export_lesions(
        workspace,
        RunSettings(),
        records["prepare_lesions"],
        records["synthesize_lesions"],
        records["evaluate_lesions"],
    )
    return record, record.path(workspace.root) / "dataset"


def test_every_row_of_the_metadata_names_a_file_that_an_independent_reader_maps_back_to_its_source(
    workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    _, dataset = exported(workspace, records)
    sources = {
        "real": np.load(records["prepare_lesions"].path(workspace.root) / "images.npy"),
        "synthetic": np.load(records["synthesize_lesions"].path(workspace.root) / "images.npy"),
    }
    metadata = pl.read_csv(dataset / "metadata.csv")
    assert metadata.height == 18 + 7
    assert {path.relative_to(dataset).as_posix() for path in dataset.rglob("*.png")} == set(metadata["file"])
    for row in metadata.iter_rows(named=True):
        grey = imread(dataset / row["file"])
        assert grey.dtype == np.uint16
        source = sources[row["origin"]][int(Path(row["file"]).stem.rsplit("_", 1)[1]), 0]
        truth = np.clip(source / 16384, -1, 1)
        assert np.abs(grey / 65535 * 2 - 1 - truth).max() <= 1 / 32768


def test_the_ends_of_the_unit_range_are_black_and_white(workspace: Workspace, lesion_records: Records) -> None:
    _, dataset = exported(workspace, lesion_records(False))
    first = imread(next((dataset / "real" / "train").rglob("sub-00_000000.png")))
    assert first[0, :3].tolist() == [0, 32768, 65535]


def test_flagged_images_are_left_out_and_synthetic_ones_are_for_training_only(
    workspace: Workspace, lesion_records: Records
) -> None:
    record, dataset = exported(workspace, lesion_records(False))
    metadata = pl.read_csv(dataset / "metadata.csv").filter(pl.col("origin") == "synthetic")
    assert sorted(int(Path(file).stem.rsplit("_", 1)[1]) for file in metadata["file"]) == [0, 2, 3, 5, 6, 7, 8]
    assert set(metadata["split"]) == {"train"}
    assert metadata["seed"].min() == 2**40
    assert set(metadata["model_sha256"]) == {"ab" * 32}
    assert metadata["subject_id"].null_count() == metadata.height
    assert record.facts["released"] is True
    assert (record.facts["real"], record.facts["synthetic"], record.facts["left_out"]) == (18, 7, 2)


def test_a_closed_gate_exports_the_real_images_alone_and_says_why(
    workspace: Workspace, lesion_records: Records
) -> None:
    record, dataset = exported(workspace, lesion_records(True))
    assert record.facts["released"] is False
    assert "gate is closed" in str(record.facts["reason"])
    assert not (dataset / "synthetic").exists()
    assert set(pl.read_csv(dataset / "metadata.csv")["origin"]) == {"real"}
    card = json.loads((dataset / "data_card.json").read_text())
    assert card["synthetic"]["exported"] == 0
    assert card["synthetic"]["flagged_and_left_out"] == 9
    assert "gate is closed" in (dataset / "data_card.md").read_text()


def test_no_class_name_leaves_the_dataset_folder(workspace: Workspace, lesion_records: Records) -> None:
    record, dataset = exported(workspace, lesion_records(False))
    outside = {"settings.json", "runtime.json", "record.json", "dataset"}
    assert {path.name for path in record.path(workspace.root).iterdir()} == outside
    assert not any("escape" in path.name for path in workspace.root.iterdir())
    assert (dataset / "real" / "train" / "glioma").is_dir()


def test_cells_that_a_spreadsheet_would_run_are_text(workspace: Workspace, lesion_records: Records) -> None:
    _, dataset = exported(workspace, lesion_records(False))
    classes = set(pl.read_csv(dataset / "metadata.csv")["lesion_class"])
    assert classes == {"'=cmd|' /C calc'!A0", "glioma", "../../escape"}


def test_the_card_counts_what_is_on_disk(workspace: Workspace, lesion_records: Records) -> None:
    _, dataset = exported(workspace, lesion_records(False))
    card = json.loads((dataset / "data_card.json").read_text())
    on_disk = {
        origin: {
            split.name: sorted(len(list(folder.iterdir())) for folder in split.iterdir())
            for split in (dataset / origin).iterdir()
            if split.is_dir()
        }
        for origin in ("real", "synthetic")
    }
    counted = {
        origin: {split: sorted(classes.values()) for split, classes in splits.items()}
        for origin, splits in card["counts"].items()
    }
    assert counted == on_disk
    assert card["pixels"]["clipped_pixels"] == 1
    assert "Research use only" in card["intended_use"]


def test_a_second_export_is_found_and_a_new_workspace_gives_the_same_bytes(
    workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    first, _ = exported(workspace, records)
    again, _ = exported(workspace, records)
    assert again.cached
    assert not first.cached
    (first.path(workspace.root) / "dataset" / "metadata.csv").write_text("damaged")
    made_again, _ = exported(workspace, records)
    assert not made_again.cached
    assert made_again.content_sha256 == first.content_sha256


def test_images_of_several_channels_are_refused_by_formats_of_grey_images(
    workspace: Workspace, lesion_records: Records
) -> None:
    records = lesion_records(False)
    path = records["synthesize_lesions"].path(workspace.root) / "images.npy"
    np.save(path, np.zeros((9, 3, 16, 16), np.int16))
    with pytest.raises(InputError, match="grey"):
        exported(workspace, records)


def test_every_format_that_settings_name_is_registered() -> None:
    assert list(EXPORTS) == list(get_args(ExportSettings.model_fields["format"].annotation))
