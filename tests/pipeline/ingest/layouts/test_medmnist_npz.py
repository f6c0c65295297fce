import zipfile

import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = {
    name: RNG.integers(0, 255, (count, 28, 28)).astype(np.uint8)
    for name, count in (("train", 9), ("val", 3), ("test", 4))
}
LABELS = {name: (np.arange(len(images)) % 2).astype(np.uint8)[:, None] for name, images in IMAGES.items()}


def _arrays(**change):
    arrays = {f"{name}_images": images for name, images in IMAGES.items()}
    return arrays | {f"{name}_labels": labels for name, labels in LABELS.items()} | change


def test_images_labels_and_split_are_kept(inputs, run_ingest):
    np.savez(inputs.root / "set.npz", **_arrays())
    result = run_ingest(inputs.root / "set.npz")
    table = result.catalog.series.join(result.catalog.lesions, on="series_id")
    for name, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = table.filter(pl.col("published_split") == split)
        found = sorted((result.catalog.image(row).tobytes(), row["lesion_class"]) for row in rows.iter_rows(named=True))
        truth = zip(IMAGES[name], LABELS[name][:, 0], strict=True)
        assert found == sorted((image.tobytes(), f"class-{label}") for image, label in truth)


@pytest.mark.parametrize("names", ['["normal", "pneumonia"]', '{"label": {"0": "normal", "1": "pneumonia"}}'])
def test_class_names_come_from_the_json_beside_it(inputs, run_ingest, names):
    np.savez(inputs.root / "set.npz", **_arrays())
    inputs.text("set.json", names)
    assert run_ingest().record.facts["lesion_classes"] == {"normal": 9, "pneumonia": 7}


@pytest.mark.parametrize("names", ["[1, 2", '{"zero": "normal"}', '["<b>"]', '"normal"', "[1]"])
def test_a_json_that_names_no_classes_is_refused(inputs, run_ingest, names):
    np.savez(inputs.root / "set.npz", **_arrays())
    inputs.text("set.json", names)
    with pytest.raises(InputError, match="must name its classes"):
        run_ingest()


def test_two_archives_are_refused(inputs, run_ingest):
    for name in ("a", "b"):
        np.savez(inputs.root / f"{name}.npz", **_arrays())
    with pytest.raises(InputError, match=r"2 \.npz files"):
        run_ingest()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"val_labels": LABELS["val"][:-1]}, "BAD_ARRAY"),
        ({"val_labels": np.zeros((3, 2), np.uint8)}, "BAD_ARRAY"),
        ({"val_labels": np.zeros(3)}, "BAD_ARRAY"),
        ({"val_images": np.zeros((3, 28, 28, 28), np.uint8)}, "BAD_ARRAY"),
        ({"val_images": np.zeros((3, 28, 28))}, "BAD_ARRAY"),
        ({"val_images": np.full((3, 28, 28), np.nan, np.float32)}, "BAD_ARRAY"),
        ({"val_labels": np.full(3, np.nan)}, "BAD_ARRAY"),
        ({"val_images": np.zeros((3, 28, 28, 2), np.uint8)}, "BAD_ARRAY"),
        ({"val_images": np.zeros((3, 28, 28, 4), np.uint8)}, "BAD_ARRAY"),
        ({"val_images": RNG.integers(0, 255, (3, 28, 28, 3)).astype(np.uint8)}, "UNSUPPORTED_COLOR"),
        ({"val_images": np.array([print, print, print])}, "UNREADABLE"),
    ],
)
def test_a_split_that_cannot_be_trusted_is_quarantined_alone(inputs, run_ingest, change, reason):
    np.savez(inputs.root / "set.npz", **_arrays(**change))
    result = run_ingest()
    assert result.reasons() == [reason]
    assert set(result.catalog.series["published_split"]) == {"train", "test"}


def test_a_split_that_is_absent_is_named(inputs, run_ingest):
    np.savez(inputs.root / "set.npz", train_images=IMAGES["train"], train_labels=LABELS["train"])
    result = run_ingest()
    assert result.reasons() == ["MISSING_ARRAY", "MISSING_ARRAY"]
    assert result.record.facts["series"] == 9


def test_a_bomb_is_stopped_by_the_memory_limit(inputs, run_ingest):
    header = np.lib.format
    bomb = inputs.root / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("train_images.npy", "w") as stream:
        header.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 224, 224)})
        stream.write(bytes(1 << 20))
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("train_labels.npy", "w") as stream:
        header.write_array(stream, np.zeros(10**3, np.uint8))
    with pytest.raises(InputError, match="OUT_OF_MEMORY"):
        run_ingest(bomb, memory_limit_mb=1500)
