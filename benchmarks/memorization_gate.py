"""Does the release gate find planted copies of real images, and does it leave new real images alone?

Three public image sets that anyone can fetch, split by subject into training images, held-out images (which calibrate)
and fresh images (which play an honest synthetic cohort). Copies of training images are planted: as they are, mirrored,
moved by 2 pixels, with noise, and all of it at once. Wanted: every copy found, at most 1 % of the fresh images accused,
the fresh cohort passed, and the same cohort blocked once a tenth of it are copies.

    python -m benchmarks.memorization_gate --data FOLDER --out bench-out

FOLDER holds ``brain_tumor_mri`` (class folders), ``ct_slices/real`` (file names begin with the case) and
``pneumoniamnist/pneumoniamnist.npz``; what is absent is left out.
"""

import argparse
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.files import write_json
from pipeline.metrics.copy_search import MAX_SHIFT, MILD_NOISE
from pipeline.metrics.memorization import find_memorized
from pipeline.near_duplicates import find_near_duplicates

PLANTED = 300
"""Copies planted of each kind at the most."""

Planes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RealImages:
    """Real images in three parts that share no subject.

    Attributes:
        train, held_out, fresh: (n, H, W) grey levels.
        subjects: subject of every held-out image.
        split: how the parts were made.
    """

    train: Planes
    held_out: Planes
    fresh: Planes
    subjects: tuple[str, ...]
    split: str


def brain_tumor_mri(folder: Path, edge: int = 64) -> RealImages:
    """Brain slices without subject names: clusters of near-duplicates are split 2 : 1 : 1."""
    images, _ = _pictures(sorted((folder / "brain_tumor_mri").glob("*/*.jpg")), edge)
    clusters = find_near_duplicates(images).clusters
    return _parted(images, clusters, (0.5, 0.25, 0.25), f"clusters of near-duplicates, {edge} px")


def ct_slices(folder: Path, edge: int = 64) -> RealImages:
    """CT slices of 11 patients: five train, three are held out, three are fresh."""
    images, names = _pictures(sorted((folder / "ct_slices" / "real").glob("*.png")), edge)
    _, patients = np.unique([name.split("-")[0] for name in names], return_inverse=True)
    order = np.random.default_rng(0).permutation(int(patients.max()) + 1)
    side = np.searchsorted([5, 8], np.argsort(order)[patients], side="right")
    return _sides(images, patients, side, f"patients, {edge} px")


def pneumoniamnist(folder: Path) -> RealImages:
    """Chest radiographs of 28 px with their published split; nearly every image is another child."""
    stored = np.load(folder / "pneumoniamnist" / "pneumoniamnist.npz", allow_pickle=False)
    train, held_out, fresh = (stored[f"{name}_images"].astype(np.float32) for name in ("train", "val", "test"))
    return RealImages(train, held_out, fresh, tuple(map(str, range(len(held_out)))), "as published, 28 px")


SETS: dict[str, Callable[[Path], RealImages]] = {
    "brain_tumor_mri": brain_tumor_mri,
    "ct_slices": ct_slices,
    "pneumoniamnist": pneumoniamnist,
}


def measure(real: RealImages, planted: int = PLANTED) -> dict[str, Any]:
    """What the gate finds: share of planted copies by kind, fresh images accused, verdicts on both cohorts."""
    rng = np.random.default_rng(0)
    originals = real.train[rng.permutation(len(real.train))[:planted]]
    kinds = plant(originals, float(np.ptp(real.train)), rng)
    cohort = np.concatenate([real.fresh, *kinds.values()])
    search = find_memorized(real.train, real.held_out, cohort, np.random.default_rng(0), real.subjects)
    accused, *flags = np.split(search.flags, np.cumsum([len(real.fresh), *map(len, kinds.values())])[:-1])
    share = {kind: float(found.mean()) for kind, found in zip(kinds, flags, strict=True)}
    tenth = np.concatenate([real.fresh, kinds["all at once"][: len(real.fresh) // 9]])
    verdicts = {
        name: find_memorized(real.train, real.held_out, side, np.random.default_rng(0), real.subjects).verdict
        for name, side in (("fresh", real.fresh), ("fresh and a tenth of copies", tenth))
    }
    return {
        "split": real.split,
        "train": len(real.train),
        "held_out": search.held_out,
        "held_out_that_are_training_images": search.identical,
        "threshold": search.threshold,
        "calibrated_rate": search.calibrated_rate,
        "planted_of_each_kind": len(originals),
        "found": share,
        "fresh": len(real.fresh),
        "fresh_accused": int(accused.sum()),
        "fresh_accused_share": float(accused.mean()),
        "verdicts": verdicts,
    }


def plant(originals: Planes, width: float, rng: np.random.Generator) -> dict[str, Planes]:
    """Copies of every kind; ``width`` is the intensity range that noise is a share of."""

    def noisy(images: Planes, level: float) -> Planes:
        return np.asarray(images + rng.normal(0, level * width, images.shape), dtype=np.float32)

    mirrored = originals[:, :, ::-1]
    moved = np.roll(originals, (MAX_SHIFT, -MAX_SHIFT), axis=(1, 2))
    return {
        "exact": originals,
        "mirrored": mirrored,
        "shifted by 2 px": moved,
        f"noise of {MILD_NOISE:.0%}": noisy(originals, MILD_NOISE),
        "all at once": noisy(moved[:, :, ::-1], MILD_NOISE),
        "noise of 5%, beyond what is promised": noisy(originals, 0.05),
    }


def _pictures(paths: Iterable[Path], edge: int) -> tuple[Planes, list[str]]:
    images, names = [], []
    for path in paths:
        try:
            with Image.open(path) as picture:
                small = picture.convert("L").resize((edge, edge), Image.Resampling.BOX)
        except OSError:  # some are broken as published
            continue
        images.append(np.asarray(small, dtype=np.float32))
        names.append(path.name)
    return np.stack(images), names


def _parted(images: Planes, owner: npt.NDArray[np.int64], shares: tuple[float, ...], split: str) -> RealImages:
    side = np.random.default_rng(0).choice(len(shares), size=int(owner.max()) + 1, p=shares)[owner]
    return _sides(images, owner, side, split)


def _sides(images: Planes, owner: npt.NDArray[np.int64], side: npt.NDArray[np.int64], split: str) -> RealImages:
    subjects = tuple(str(name) for name in owner[side == 1])
    return RealImages(images[side == 0], images[side == 1], images[side == 2], subjects, split)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memorization_gate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the image sets")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, load in SETS.items():
        if not (options.data / name).is_dir():
            print(f"{name}: absent")
            continue
        found[name] = measure(load(options.data))
        print(f"{name}: {found[name]}", flush=True)
    content = {
        "benchmark": "memorization_gate",
        "command": "python -m benchmarks.memorization_gate --data FOLDER",
        "sets": found,
        "python": platform.python_version(),
    }
    write_json(options.out / "memorization_gate.json", content)


if __name__ == "__main__":
    main()
