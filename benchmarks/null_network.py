"""The rule on use for a classifier with the network itself: one study each of nothing, a benefit and a harm.

`benchmarks.null_calibration` counts how often the rule errs, on logistic regression, so that hundreds of studies fit
into minutes. This one checks that the same holds along the whole way: images, all six arms, the small network,
classical augmentation, the bootstrap over subjects and seeds. Two classes of gratings in noise that differ in angle.

    python -m benchmarks.null_network --out bench-out
"""

import argparse
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.null_calibration import SCENARIOS
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.evaluate.utility import run_arms
from pipeline.evaluate.utility_scores import arm_interval
from pipeline.evaluate.utility_tables import arm_rows
from pipeline.evaluate.utility_verdict import RULE, judge_use
from pipeline.files import write_json
from pipeline.records import silent
from pipeline.settings import EvaluateLesionsSettings

EDGE, ANGLES, NOISE = 32, (0.5, 0.75), 0.6
TEST_PER_CLASS = 200
SETTINGS = EvaluateLesionsSettings(classifier_steps=80, seeds=5)
WANTED = {"null": "neutral", "benefit": "good", "harm": "bad"}


def draw(per_class: tuple[int, int], seed: int, prefix: str) -> Cohort:
    """Gratings of two classes; two images a subject."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:EDGE, :EDGE] / EDGE
    images = []
    for number in np.repeat([0, 1], per_class):
        turn = ANGLES[number] + rng.normal(0, 0.12)
        wave = np.cos(
            2 * np.pi * rng.uniform(3, 5) * (np.cos(turn) * rows + np.sin(turn) * columns) + rng.uniform(0, 6)
        )
        images.append(np.clip(rng.uniform(0.3, 0.6) * wave + rng.normal(0, NOISE, wave.shape), -1, 1))
    stack = torch.from_numpy(np.stack(images)[:, None].astype(np.float32))
    subjects = tuple(f"{prefix}-{number // 2}" for number in range(len(images)))
    return Cohort(stack, torch.from_numpy(np.repeat([0, 1], per_class)), subjects)


def simulated(scenario: str, seed: int) -> Study:
    """A study; in the null one the added images are a second random draw from the real training images."""
    train = draw((60, 2) if scenario == "benefit" else (60, 60), seed, "train")
    test = draw((TEST_PER_CLASS, TEST_PER_CLASS), seed + 1, "test")
    added = draw((60, 60), seed + 2, "added")
    if scenario == "harm":
        added = Cohort(added.images, 1 - added.classes, added.subjects)
    if scenario == "null":
        again = torch.randint(len(train), (len(train),), generator=torch.Generator().manual_seed(seed))
        added = Cohort(train.images[again], train.classes[again], added.subjects)
    return Study(("first", "second"), train, test, test, added)


def judged(scenario: str, seed: int) -> dict[str, Any]:
    """The verdict on one study, and the AUC difference of every arm from the real images."""
    study = simulated(scenario, seed)
    utility = run_arms(study, SETTINGS, seed, silent)
    _, differences = arm_rows(utility, study, SETTINGS, seed)
    over_control, over_classical = (
        arm_interval(utility, "real_synthetic", study, "macro_auc", SETTINGS, seed, against=other)
        for other in ("real_duplicated", "real_classical")
    )
    verdict = judge_use(differences["real_synthetic"], over_control, over_classical)
    return {
        "wanted": WANTED[scenario],
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "auc_difference_from_real": {arm: [d.value, d.low, d.high, d.p] for arm, d in differences.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_network", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    parser.add_argument("--seed", type=int, default=1, help="of the first study")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, scenario in enumerate(SCENARIOS):
        found[scenario] = judged(scenario, options.seed + 10 * number)
        print(f"{scenario}: {found[scenario]['sentence']}", flush=True)
    content = {
        "benchmark": "null_network",
        "command": f"python -m benchmarks.null_network --seed {options.seed}",
        "rule": RULE,
        "network": SETTINGS.classifier,
        "steps": SETTINGS.classifier_steps,
        "seeds": SETTINGS.seeds,
        "resamples": SETTINGS.arm_resamples,
        "studies": found,
        "python": platform.python_version(),
    }
    write_json(options.out / "null_network.json", content)


if __name__ == "__main__":
    main()
