"""Lesion GAN on real images under a budget of CPU time: how good are its images, and do they help a classifier?

Near-copies, mirrored ones too, are removed before the split. Every command appends JSON lines to ``<work>/rows.jsonl``
and skips what is there, so that a study goes on after a stop.

    python -m benchmarks.lesions_real prepare --data DIR --work WORK
    python -m benchmarks.lesions_real train --work WORK --set brain64 --preset lesions_class_folders --minutes 20
    python -m benchmarks.lesions_real score --work WORK --set brain64 --run lesions_class_folders-s0 --split validation
    python -m benchmarks.lesions_real arms --work WORK --set brain32_few0 --run NAME --arms real_classical,mix
    python -m benchmarks.lesions_real compare --work WORK --set brain32_few0 --run NAME --arms real_classical,mix
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from skimage.io import imsave

from benchmarks.lesions_real_arms import arm_scores
from benchmarks.lesions_real_comparison import kept_answers, paired_difference
from benchmarks.lesions_real_data import open_set, prepare_class_folders, prepare_npz
from benchmarks.lesions_real_scores import fidelity_scores
from benchmarks.lesions_real_training import part_of, real_above_synthetic, train_for

ROWS = "rows.jsonl"


def _once(work: Path, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Measure and append a row, unless one with this key is there."""
    path = work / ROWS
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if any(all(row.get(name) == value for name, value in key.items()) for row in known):
        print(f"known: {key}")
        return
    row = key | measure()
    with path.open("a") as rows:
        rows.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _prepare(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    for size_px in (32, 64):
        print(prepare_class_folders(options.data / "brain_tumor_mri", options.work, size_px, options.draws))
    for name in ("pneumoniamnist", "pneumoniamnist_imbalanced"):
        print(name, prepare_npz(options.data / "pneumoniamnist" / f"{name}.npz", options.work, name, 32))


def _train(options: argparse.Namespace) -> None:
    run = options.run or f"{options.preset}-s{options.seed}"
    key = {"what": "train", "set": options.set, "run": run}
    _once(
        options.work,
        key,
        lambda: train_for(
            options.work, options.set, run, options.preset, options.change, options.minutes, options.parts, options.seed
        ),
    )


def _score(options: argparse.Namespace) -> None:
    key = {"what": "score", "set": options.set, "run": options.run, "part": options.part, "split": options.split}
    _once(
        options.work, key, lambda: fidelity_scores(options.work, options.set, options.run, options.part, options.split)
    )


def _arms(options: argparse.Namespace) -> None:
    for arm in options.arms.split(","):
        for seed in range(options.seeds):
            key = {
                "what": "arm",
                "set": options.set,
                "run": options.run,
                "arm": arm,
                "split": options.split,
                "seed": seed,
            }
            _once(options.work, key, lambda arm=arm, seed=seed: arm_scores(options.work, options, arm, seed))  # type: ignore[misc]


def _grid(options: argparse.Namespace) -> None:
    path = part_of(options.work, options.run, options.part).with_suffix(".grid.png")
    imsave(path, real_above_synthetic(options.work, options.set, options.run, options.part), check_contrast=False)
    print(path)


def _compare(options: argparse.Namespace) -> None:
    first, *others = options.arms.split(",")
    images = open_set(options.work, options.set)
    truth = images.class_indices()[images.rows(options.split)]
    folder = options.work / "answers" / f"{options.set}-{options.run}"
    answers = {arm: kept_answers(folder, options.split, arm, options.seeds) for arm in (first, *others)}
    for arm in others:
        key = {"what": "compare", "set": options.set, "run": options.run, "split": options.split, "arms": [first, arm]}
        _once(options.work, key, lambda arm=arm: paired_difference(truth, answers[first], answers[arm]))  # type: ignore[misc]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lesions_real", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--work", type=Path, required=True, help="folder of sets, runs and rows")
    of_set = argparse.ArgumentParser(add_help=False, parents=[shared])
    of_set.add_argument("--set", required=True, help="a prepared set")
    prepare = commands.add_parser("prepare", parents=[shared])
    prepare.add_argument("--data", type=Path, required=True, help="holds brain_tumor_mri and pneumoniamnist")
    prepare.add_argument("--draws", type=int, default=5, help="small training sets to draw")
    prepare.set_defaults(call=_prepare)
    train = commands.add_parser("train", parents=[of_set])
    train.add_argument("--preset", default="lesions_class_folders")
    train.add_argument("--change", action="append", default=[], help="setting of train.lesions, e.g. width=24")
    train.add_argument("--run", help="name of the run; preset and seed by default")
    train.add_argument("--minutes", type=float, default=20.0, help="CPU time of all threads")
    train.add_argument("--parts", type=int, default=4, help="models kept, at equal steps of time")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(call=_train)
    score = commands.add_parser("score", parents=[of_set])
    score.add_argument("--run", required=True)
    score.add_argument("--part", type=int, default=0, help="which of the models kept; 0 is the last")
    score.add_argument("--split", choices=("validation", "test"), default="validation")
    score.set_defaults(call=_score)
    arms = commands.add_parser("arms", parents=[of_set])
    arms.add_argument("--run", required=True)
    arms.add_argument("--arms", required=True, help="names of benchmarks.lesions_real_arms.ARMS")
    arms.add_argument("--split", choices=("validation", "test"), default="validation")
    arms.add_argument("--seeds", type=int, default=2)
    arms.add_argument("--per-class", type=int, default=200, help="synthetic images made of each class")
    arms.set_defaults(call=_arms)
    grid = commands.add_parser("grid", parents=[of_set])
    grid.add_argument("--run", required=True)
    grid.add_argument("--part", type=int, default=0, help="which of the models kept; 0 is the last")
    grid.set_defaults(call=_grid)
    compare = commands.add_parser("compare", parents=[of_set])
    compare.add_argument("--run", required=True)
    compare.add_argument("--arms", required=True, help="each of the later ones against the first")
    compare.add_argument("--split", choices=("validation", "test"), default="validation")
    compare.add_argument("--seeds", type=int, default=2)
    compare.set_defaults(call=_compare)
    return parser


def main() -> None:
    torch.set_num_threads(1)
    options = _parser().parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
