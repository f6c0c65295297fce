"""Whole scans in the formats of other tools, read back by MONAI, nibabel and our own ingest."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest

from pipeline.catalog import LESION_SCHEMA, SERIES_SCHEMA, Catalog, read_catalog, write_catalog
from pipeline.errors import InputError
from pipeline.export.scan_stage import SCAN_EXPORTS, ScanFormat, export_scans
from pipeline.files import write_json
from pipeline.ingest.stage import ingest
from pipeline.records import StageRecord
from pipeline.scan_io import write_nifti
from pipeline.settings import ExportSettings
from pipeline.settings_loading import validate
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

SPLITS = {"sub-0a": "train", "sub-0b": "train", "sub-0c": "validation", "sub-0d": "test", "sub-0e": "train"}
CLASSES = {"sub-0a": ["cyst"], "sub-0b": ["cyst", "ring 2"], "sub-0c": ["ring 2"], "sub-0d": ["cyst"], "sub-0e": []}
SHAPE = (14, 12, 9)
AFFINE = np.array([[-1.5, 0, 0, 10.0], [0, 2.0, 0, -7.0], [0, 0, 3.0, 5.0], [0, 0, 0, 1]])
MODEL = "cd" * 32


def _row(schema: dict[str, Any], **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema) | values


def _fill(folder: Path, modality: str, with_masks: bool) -> None:
    """A catalog of one volume a subject; the lesions of one overlap in a voxel."""
    rng = np.random.default_rng(3)
    series, lesions = [], []
    for subject, classes in CLASSES.items():
        name = f"ser-{subject[4:]}"
        voxels = rng.integers(0, 300, SHAPE).astype(np.int16)
        write_nifti(folder / "volumes" / f"{name}.nii", voxels, AFFINE, np.int16)
        series.append(
            _row(
                SERIES_SCHEMA, series_id=name, subject_id=subject, subject_source="patient_id", kind="volume",
                source="nifti", modality=modality, sequence="T1" if modality == "MR" else None, flags=[],
                unit="signal" if modality == "MR" else "HU", shape=list(SHAPE), spacing_mm=[1.5, 2.0, 3.0],
                affine=AFFINE.ravel().tolist(), path=f"volumes/{name}.nii", stack_index=-1, slice_index=-1,
                content_sha256=name,
            )
        )  # fmt: skip
        for number, lesion_class in enumerate(classes if with_masks else []):
            mask = np.zeros(SHAPE, np.int16)
            mask[2 + 2 * number : 5 + 2 * number, 3:6, 2:5] = 7
            path = f"masks/{name}-{number}.nii"
            write_nifti(folder / path, mask, AFFINE, np.int16)
            lesions.append(
                _row(
                    LESION_SCHEMA, lesion_id=f"les-{subject[4:]}-{number}", subject_id=subject, series_id=name,
                    lesion_class=lesion_class, mask_path=path, mask_value=7, volume_mm3=243.0,
                )
            )  # fmt: skip
    write_catalog(folder, series, lesions, [])


def _translate(folder: Path) -> None:
    """Pseudo-CT of two subjects."""
    rows = []
    for subject in ("sub-0c", "sub-0d"):
        path = f"{subject}/{subject}_pseudo-ct.nii.gz"
        write_nifti(folder / path, np.full(SHAPE, 40, np.int16), AFFINE, np.int16)
        series = f"ser-{subject[4:]}"
        rows.append({"series_id": series, "subject_id": subject, "split": SPLITS[subject], "nifti_path": path})
    pl.DataFrame(rows).write_parquet(folder / "cases.parquet")


def _place(folder: Path) -> None:
    """Synthetic lesions in hosts of the training and the test split, and in one from elsewhere."""
    rows = []
    for subject in ("sub-0e", "sub-0d", "sub-ff"):
        image, mask = f"images/{subject}.nii.gz", f"masks/{subject}_lesions.nii.gz"
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:6, 3:6, 3:6], labels[8:10, 3:6, 3:6] = 1, 2
        write_nifti(folder / image, np.full(SHAPE, 40, np.int16), AFFINE, np.int16)
        write_nifti(folder / mask, labels, AFFINE, np.uint8)
        write_json(folder / f"images/{subject}.json", {"Modality": "CT"})
        for value, lesion_class in ((1, "ring 2"), (2, "cyst")):
            rows.append(
                {
                    "image_path": image, "mask_path": mask, "mask_value": value, "lesion_class": lesion_class,
                    "subject_id": subject, "series_id": f"ser-{subject[4:]}", "seed": 70 + value, "model_sha256": MODEL,
                }
            )  # fmt: skip
    pl.DataFrame(rows).write_parquet(folder / "placed.parquet")


@pytest.fixture
def record(workspace: Workspace) -> Callable[..., StageRecord]:
    write_json(workspace.splits_path, {"shares": {}, "subjects": SPLITS})

    def make(name: str, fill: Callable[..., None], *values: Any) -> StageRecord:
        def body(context: StageContext) -> dict[str, Any]:
            fill(context.folder, *values)
            return {"model_sha256": MODEL}

        return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), ExportSettings(), records={})

    return make


@pytest.fixture
def exported(workspace: Workspace, record: Callable[..., StageRecord]) -> Callable[..., Path]:
    def export(
        form: ScanFormat,
        modality: str = "CT",
        *,
        with_masks: bool = True,
        translated: bool = False,
        placed: bool = False,
    ) -> Path:
        catalog = record("ingest", _fill, modality, with_masks)
        hosts = record("place_lesions", _place) if placed else None
        translation = record("translate_mr_to_ct", _translate) if translated else None
        settings = validate({"prepare": {"lesions": {"modality": modality}}}, "a test")
        made = export_scans(workspace, settings, form, catalog, translation, hosts)
        return made.path(workspace.root) / "dataset"

    return export


def _labels(subject: str, classes: list[str]) -> np.ndarray[Any, Any]:
    wanted = np.zeros(SHAPE, np.uint8)
    for number, lesion_class in enumerate(CLASSES[subject]):
        wanted[2 + 2 * number : 5 + 2 * number, 3:6, 2:5] = 1 + classes.index(lesion_class)
    return wanted


def _ingested(tmp_path: Path, source: Path) -> Catalog:
    workspace = Workspace.open(tmp_path / "again", identity_key=bytes(range(32)))
    return read_catalog(ingest(workspace, validate({}, "a test"), source).path(workspace.root))


def _check_round_trip(catalog: Catalog) -> None:
    """The same volumes, and each lesion's class on the volume of its subject."""
    assert catalog.series.height == catalog.series["subject_id"].n_unique()
    by_series = catalog.lesions.group_by("series_id").agg(pl.col("lesion_class").sort())
    found = Counter(tuple(classes) for classes in by_series["lesion_class"])
    assert found == Counter(tuple(sorted(classes)) for classes in CLASSES.values() if classes)
    assert all(np.allclose(affine, AFFINE.ravel()) for affine in catalog.series["affine"].to_list())


@pytest.mark.parametrize(("modality", "channel"), [("CT", "CT"), ("MR", "T1")])
def test_nibabel_finds_images_and_labels_of_an_nnunet_set_where_its_dataset_json_says(
    exported: Callable[..., Path], modality: str, channel: str
) -> None:
    folder = exported("nnunet", modality)
    described = json.loads((folder / "dataset.json").read_text())
    assert described["channel_names"] == {"0": channel}
    assert described["labels"] == {"background": 0, "cyst": 1, "ring 2": 2}
    assert described["numTraining"] == 3
    metadata = pl.read_csv(folder / "metadata.csv")
    assert dict(zip(metadata["subject_id"], metadata["split"], strict=True)) == {
        subject: split for subject, split in SPLITS.items() if CLASSES[subject]
    }
    for row in metadata.iter_rows(named=True):
        part = "Ts" if row["split"] == "test" else "Tr"
        image = folder / row["file"]
        assert image.parent.name == f"images{part}"
        label = nib.load(folder / f"labels{part}" / image.name.replace("_0000", ""))
        np.testing.assert_array_equal(np.asarray(label.dataobj), _labels(row["subject_id"], ["cyst", "ring 2"]))
        np.testing.assert_allclose(label.affine, AFFINE)
        np.testing.assert_allclose(nib.load(image).affine, AFFINE)
    splits = json.loads((folder / "splits_final.json").read_text())
    assert {key: len(names) for key, names in splits[0].items()} == {"train": 2, "val": 1}
    files = {path.name for path in (folder / "imagesTr").iterdir()}
    assert files == {f"{name}_0000.nii.gz" for names in splits[0].values() for name in names}


def test_monai_reads_a_decathlon_set(exported: Callable[..., Path]) -> None:
    from monai.data import load_decathlon_datalist

    folder = exported("decathlon")
    path = str(folder / "dataset.json")
    lists = {key: load_decathlon_datalist(path, True, key) for key in ("training", "validation", "test")}
    assert {key: len(entries) for key, entries in lists.items()} == {"training": 2, "validation": 1, "test": 1}
    for entries in lists.values():
        for entry in entries:
            label = np.asarray(nib.load(entry["label"]).dataobj)
            assert label.shape == nib.load(entry["image"]).shape == SHAPE
            assert set(np.unique(label)) <= {0, 1, 2}
            assert label.any()
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"0": "background", "1": "cyst", "2": "ring 2"}


@pytest.mark.parametrize("form", ["nnunet", "decathlon"])
def test_hosts_with_synthetic_lesions_are_for_training_alone_and_say_what_they_are(
    exported: Callable[..., Path], form: ScanFormat
) -> None:
    folder = exported(form, placed=True)
    metadata = pl.read_csv(folder / "metadata.csv")
    made = metadata.filter(pl.col("origin") == "synthetic")
    assert sorted(made["subject_id"]) == ["sub-0e", "sub-ff"], "the host of the test split stays out"
    assert set(made["split"]) == {"train"}
    assert set(made["model_sha256"]) == {MODEL}
    assert set(made["condition"]) == {"ring 2, seed 71; cyst, seed 72"}
    for name in made["file"]:
        assert Path(name).parts[0] == "imagesTr"
        assert Path(name).name.startswith("synthetic-")
        label = nib.load(folder / "labelsTr" / Path(name).name.replace("_0000", ""))
        wanted = np.zeros(SHAPE, np.uint8)
        wanted[3:6, 3:6, 3:6], wanted[8:10, 3:6, 3:6] = 2, 1
        np.testing.assert_array_equal(np.asarray(label.dataobj), wanted)
    assert not any("synthetic" in path.name for path in (folder / "imagesTs").iterdir())


@pytest.mark.parametrize("form", ["nnunet", "decathlon"])
def test_an_ingest_finds_the_same_scans_and_classes_in_a_segmentation_set(
    tmp_path: Path, exported: Callable[..., Path], form: ScanFormat
) -> None:
    catalog = _ingested(tmp_path, exported(form))
    assert catalog.quarantine.is_empty(), catalog.quarantine
    assert catalog.series.height == 4
    _check_round_trip(catalog)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_ingest_finds_the_real_scans_and_lesions_of_a_bids_dataset_and_no_synthetic_one(
    tmp_path: Path, exported: Callable[..., Path], modality: str
) -> None:
    catalog = _ingested(tmp_path, exported("bids", modality, translated=True))
    assert set(catalog.quarantine["reason"]) == {"DERIVED"}
    assert catalog.series.height == 5
    assert set(catalog.series["modality"]) == {modality}
    _check_round_trip(catalog)


def test_synthetic_volumes_of_a_bids_dataset_lie_apart_and_say_what_they_are(exported: Callable[..., Path]) -> None:
    folder = exported("bids", "MR", translated=True)
    for place, kind in ((folder, "raw"), (folder / "derivatives" / "scanloom", "derivative")):
        described = json.loads((place / "dataset_description.json").read_text())
        assert described["DatasetType"] == kind
        assert {"Name", "BIDSVersion"} <= described.keys()
        assert described["GeneratedBy"][0]["Name"] == "scanloom"
    synthetic = sorted(folder.rglob("*desc-synthetic_ct.nii.gz"))
    assert len(synthetic) == 2
    for path in synthetic:
        assert "derivatives" in path.parts
        told = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert told["SyntheticData"] is True
        assert told["ModelSHA256"] == MODEL
        source = folder / told["Sources"][0].removeprefix("bids::")
        assert np.allclose(nib.load(source).affine, nib.load(path).affine)
    assert not any("synthetic" in path.name for path in folder.glob("sub-*/**/*"))
    participants = pl.read_csv(folder / "participants.tsv", separator="\t")
    assert dict(participants.iter_rows()) == SPLITS
    metadata = pl.read_csv(folder / "derivatives" / "scanloom" / "metadata.csv")
    assert all((folder / name).is_file() for name in metadata["file"])
    assert set(metadata.filter(pl.col("origin") == "synthetic")["model_sha256"]) == {MODEL}


@pytest.mark.parametrize("form", ["nnunet", "decathlon"])
def test_scans_without_masks_are_refused_by_formats_that_need_them(
    exported: Callable[..., Path], form: ScanFormat
) -> None:
    with pytest.raises(InputError) as caught:
        exported(form, with_masks=False)
    assert "segmentation masks" in caught.value.rule
    assert caught.value.found.startswith("0 of 5 scans with masks")
    assert "image_folder" in caught.value.change


def test_voxels_in_several_lesions_are_counted_and_given_to_the_last(exported: Callable[..., Path]) -> None:
    folder = exported("nnunet")
    assert json.loads((folder / "data_card.json").read_text())["voxels_in_several_lesions"] == 9


def test_scans_need_a_split(workspace: Workspace, record: Callable[..., StageRecord]) -> None:
    catalog = record("ingest", _fill, "CT", True)
    workspace.splits_path.unlink()
    with pytest.raises(InputError, match="split of their subjects"):
        export_scans(workspace, validate({}, "a test"), "nnunet", catalog)


@pytest.mark.parametrize("form", list(SCAN_EXPORTS))
def test_equal_scans_give_equal_bytes(workspace: Workspace, exported: Callable[..., Path], form: ScanFormat) -> None:
    import shutil

    first = exported(form)
    before = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    shutil.rmtree(first.parent)
    again = exported(form)
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == before
