from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.intensity import CT_MAP, to_int16
from pipeline.prepared_set import (
    ImageSet,
    VolumeSet,
    VolumeSetWriter,
    read_image_set,
    read_volume_set,
    write_image_set,
)


def image_set(folder: Path, per_class: int = 6) -> ImageSet:
    """Bright and dark 32-pixel squares in noise: two classes, six training images each."""
    rng = np.random.default_rng(3)
    rows, images = [], []
    for lesion_class, level in (("bright", 0.7), ("dark", -0.7)):
        for number in range(per_class + 2):
            image = rng.normal(0, 0.05, (1, 32, 32))
            image[:, 10:22, 10:22] += level
            images.append(to_int16(image.clip(-1, 1)))
            split = "train" if number < per_class else "test"
            name = f"{lesion_class}-{number}"
            rows.append(
                {"image": len(rows), "subject_id": name, "series_id": name, "lesion_id": name, "slice_index": -1,
                 "lesion_class": lesion_class, "split": split}
            )  # fmt: skip
    facts = {
        "classes": ["bright", "dark"],
        "counts": {"train": {"bright": per_class, "dark": per_class}},
        "modality": "MR",
        "size_px": 32,
        "pixel_mm": 1.0,
    }
    write_image_set(folder, np.stack(images), pl.DataFrame(rows), facts)
    return read_image_set(folder)


def volume_set(folder: Path, subjects: int = 3, sequences: tuple[str, ...] = ()) -> VolumeSet:
    """Ellipses of different size: MR and registered CT, (4, 40, 36) each.

    With two ``sequences`` the second one alone shows bone, as bright; the first is the same wherever there is body.
    """
    writer = VolumeSetWriter(folder)
    rows, columns = np.mgrid[:40, :36]
    for number in range(subjects):
        body = ((rows - 20) / (14 + number)) ** 2 + ((columns - 18) / 12) ** 2 < 1
        mask = np.repeat(body[None], 4, 0).astype(np.uint8)
        ct = np.where(mask, 40 + 300 * (columns > 18), -1000).astype(np.int16)
        mr = to_int16(np.where(mask, 0.4 - 0.9 * (columns > 18), -1))
        more: list[np.ndarray] = []
        if sequences:
            mr, more = to_int16(np.where(mask, 0.4, -1.0)), [to_int16(np.where(mask, 0.5 * (columns > 18), -1))]
        shared = {
            "subject_id": f"s{number}",
            "split": "train",
            "pair_volume": -1,
            "affine": None,
            "mr_low": 0.0,
            "mr_high": 1.0,
        }
        told = {"channel_series": [f"n{number}"], "channel_low": [0.0], "channel_high": [1.0]} if sequences else {}
        row = shared | told | {"modality": "MR", "series_id": f"m{number}", "own_grid": True}
        first = writer.add(row, mr, mask, more)
        second = writer.add(shared | {"modality": "CT", "series_id": f"c{number}", "own_grid": False}, ct, mask)
        writer.link(first, second)
        writer.add(shared | {"modality": "CT", "series_id": f"c{number}", "own_grid": True}, ct, mask)
    knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
    facts = {"unit": "HU", "ct_map": knots, "spacing_mm": [2.0, 2.0, 4.0]}
    writer.close(facts | ({"sequences": list(sequences)} if sequences else {}))
    return read_volume_set(folder)


@pytest.fixture
def images(tmp_path):
    return image_set(tmp_path / "lesions")


@pytest.fixture
def volumes(tmp_path):
    return volume_set(tmp_path / "volumes")
