"""Batches of registered MR and CT patches: the memory-mapped prepared set beside MONAI's CacheDataset and DataLoader.

Both sides give batches of 96-pixel patches with MR, CT and body mask, cut at random and mirrored at random. The peer
holds every slice in memory, already scaled; ours reads int16 from the mapping and scales what it cuts.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import Comparison, Side, compare, cpu_seconds
from pipeline.intensity import CT_MAP, from_int16, to_int16
from pipeline.prepared_set import VolumeSet, VolumeSetWriter, read_volume_set
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.patch_sampler import PatchSampler

BATCH, BATCHES, SIDE = 16, 20, 96
SHAPE, SUBJECTS = (40, 192, 160), 8


def run() -> list[Comparison]:
    """One comparison."""
    with tempfile.TemporaryDirectory() as folder:
        volumes = _volume_set(Path(folder) / "set")
        settings = TrainMRToCTSettings(patch_px=SIDE, supervision="paired", coordinates=False, mirror=True)
        sampler = PatchSampler(volumes, settings, torch.Generator().manual_seed(0), torch.device("cpu"))
        loader = _monai_loader(volumes)

        def ours() -> None:
            for _ in range(BATCHES):
                sampler.draw(BATCH)

        def peer() -> None:
            for number, _ in enumerate(loader, 1):
                if number == BATCHES:
                    break

        return [
            compare(
                "prepared_loading",
                f"{BATCHES} batches of {BATCH} pairs of {SIDE}-pixel patches with body mask",
                Side("memory-mapped prepared set", lambda: cpu_seconds(ours)),
                Side(f"MONAI {version('monai')} CacheDataset, DataLoader", lambda: cpu_seconds(peer)),
                rounds=5,
                images=BATCH * BATCHES,
            )
        ]


def _volume_set(folder: Path) -> VolumeSet:
    rng = np.random.default_rng(0)
    _, rows, columns = np.indices(SHAPE)
    knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
    with VolumeSetWriter(folder) as writer:
        for number in range(SUBJECTS):
            mask = (((rows - 96) / 80) ** 2 + ((columns - 80) / (60 + number)) ** 2 < 1).astype(np.uint8)
            mr = to_int16(np.where(mask, rng.uniform(-1, 1, SHAPE), -1))
            ct = np.where(mask, rng.integers(-200, 1500, SHAPE), -1000).astype(np.int16)
            row: dict[str, Any] = {"subject_id": f"s{number}", "split": "train", "pair_volume": -1, "affine": None}
            row |= {"mr_low": 0.0, "mr_high": 1.0}
            first = writer.add(row | {"modality": "MR", "series_id": f"m{number}", "own_grid": True}, mr, mask)
            second = writer.add(row | {"modality": "CT", "series_id": f"c{number}", "own_grid": False}, ct, mask)
            writer.link(first, second)
            writer.add(row | {"modality": "CT", "series_id": f"c{number}", "own_grid": True}, ct, mask)
        writer.close({"unit": "HU", "ct_map": knots, "spacing_mm": [1.0, 1.0, 3.0]})
    return read_volume_set(folder)


def _monai_loader(volumes: VolumeSet) -> Any:
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, EnsureChannelFirstd, RandFlipd, RandSpatialCropd

    items = []
    for row in volumes.volumes("MR", ["train"]):
        mr, mask = from_int16(volumes.voxels(row)), np.asarray(volumes.mask(row), np.float32)
        ct = CT_MAP.encode(volumes.voxels(volumes.row(row["pair_volume"])))
        items += [{"mr": mr[k], "ct": ct[k], "mask": mask[k]} for k in range(len(mr))]
    keys = ("mr", "ct", "mask")
    steps = [
        EnsureChannelFirstd(keys, channel_dim="no_channel"),
        RandSpatialCropd(keys, roi_size=(SIDE, SIDE), random_size=False),
        RandFlipd(keys, prob=0.5, spatial_axis=1),
    ]
    return DataLoader(CacheDataset(items, Compose(steps), progress=False), batch_size=BATCH, shuffle=True)
