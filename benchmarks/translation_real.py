"""MR to CT on real and semi-synthetic slices under a budget of CPU time, beside lookups that were fitted on pairs.

Every command appends JSON lines to ``<work>/rows.jsonl`` and skips what is there, so that a study goes on after a stop.
``<work>/head_pairs`` holds MR/ and CT/ pictures, ``<work>/semi`` what the simulation wrote: MR/ pictures and CT/ arrays
in HU. Rotations split by case; no test case is seen before it is scored.

    python -m benchmarks.translation_real baselines --work WORK
    python -m benchmarks.translation_real train --work WORK --set head_pairs --preset mr_to_ct_paired --minutes 10
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.lesions_real import _once
from benchmarks.translation_real_data import ROTATIONS, moved_cts, read_set
from benchmarks.translation_real_scores import baselines
from benchmarks.translation_real_training import ensemble_of, train_for

SETS = ("head_pairs", "semi_head", "semi_pelvis")


def _baselines(options: argparse.Namespace) -> None:
    for name in SETS:
        for rotation in range(ROTATIONS):
            key = {"what": "baselines", "set": name, "rotation": rotation}
            pairs = read_set(options.work, name)
            _once(options.work, key, lambda pairs=pairs, rotation=rotation: baselines(pairs, rotation))  # type: ignore[misc]


def _train(options: argparse.Namespace) -> None:
    run = f"{options.run or options.preset}-{options.set}-r{options.rotation}-s{options.seed}"
    key: dict[str, Any] = {"what": "train", "run": run, "set": options.set, "rotation": options.rotation}
    key["moved_px"] = options.moved

    def measure() -> dict[str, Any]:
        pairs = read_set(options.work, options.set)
        folder, moved = options.work / "runs" / run, None
        if options.moved > 0:
            train, air = pairs.split(options.rotation)[0], -1000.0 if pairs.unit == "HU" else 0.0
            moved = moved_cts(train, options.moved, options.seed, air)
        return train_for(
            folder,
            pairs,
            options.rotation,
            options.preset,
            options.change,
            options.minutes,
            options.parts,
            options.seed,
            moved,
        )

    _once(options.work, key, measure)


def _ensemble(options: argparse.Namespace) -> None:
    key = {"what": "ensemble", "runs": options.runs, "set": options.set, "rotation": options.rotation}
    folders = [options.work / "runs" / run for run in options.runs]
    _once(options.work, key, lambda: ensemble_of(folders, read_set(options.work, options.set), options.rotation))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation_real", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--work", type=Path, required=True, help="folder of sets, runs and rows")
    baseline = commands.add_parser("baselines", parents=[shared])
    baseline.set_defaults(call=_baselines)
    train = commands.add_parser("train", parents=[shared])
    train.add_argument("--set", choices=SETS, required=True)
    train.add_argument("--rotation", type=int, choices=range(ROTATIONS), default=0)
    train.add_argument("--preset", required=True)
    train.add_argument("--change", action="append", default=[], help="setting of train.mr_to_ct, e.g. width=24")
    train.add_argument("--run", help="name of the run; the preset by default")
    train.add_argument("--minutes", type=float, default=10.0, help="CPU time of all threads")
    train.add_argument("--parts", type=int, default=2, help="scores at equal steps of time")
    train.add_argument("--moved", type=float, default=0.0, help="pixels that training CTs are moved and bent by")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(call=_train)
    ensemble = commands.add_parser("ensemble", parents=[shared])
    ensemble.add_argument("--set", choices=SETS, required=True)
    ensemble.add_argument("--rotation", type=int, choices=range(ROTATIONS), default=0)
    ensemble.add_argument(
        "--runs", nargs="+", required=True, help="folders of WORK/runs, trained without this test set"
    )
    ensemble.set_defaults(call=_ensemble)
    return parser


def main() -> None:
    torch.set_num_threads(1)
    options = _parser().parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
