"""How often does the verdict on use for a classifier speak where there is nothing to say, and where there is something?

Simulated studies with the rule of the evaluation stage, on fixed features and logistic regression, so that hundreds fit
into minutes. Two classes of Gaussian features; subjects shift all their images alike; an arm's classifiers are trained
on bootstrap draws of its training set, one a seed. All six arms are there, so that Holm's correction weighs what it
does in a real evaluation; classical augmentation is noise on the features.

- *null*: the added images are a second random draw from the real training images, so that the arm differs from the
  duplicated control by chance alone. The verdict should be silent; "helps" and "harms" are errors.
- *benefit*: the real set starves one class; fresh draws of it are added. The verdict should be "helps".
- *harm*: the added images carry the wrong class. The verdict should be "harms".

    python -m benchmarks.null_calibration --studies 200 --out bench-out
"""

import argparse
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.evaluate.utility_scores import Utility, arm_interval
from pipeline.evaluate.utility_tables import arm_rows
from pipeline.evaluate.utility_verdict import RULE, judge_use
from pipeline.files import write_json
from pipeline.settings import EvaluateLesionsSettings

FEATURES, CENTER, JITTER = 8, 0.45, 0.3
SETTINGS = EvaluateLesionsSettings(seeds=3)
STATED_RATE = 0.05
SCENARIOS = ("null", "benefit", "harm")

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def draw(per_class: tuple[int, int], subjects: int, rng: np.random.Generator) -> tuple[Array, Labels, tuple[str, ...]]:
    """Features, classes and subjects; a subject's images are alike."""
    classes = np.repeat([0, 1], per_class)
    owner = rng.integers(subjects, size=len(classes))
    shift = rng.normal(0, 0.5, (subjects, FEATURES))
    features = rng.normal(0, 1, (len(classes), FEATURES)) + shift[owner]
    features[:, :4] += CENTER * (2 * classes - 1)[:, None]
    return features, classes, tuple(str(name) for name in owner)


def study_outcome(scenario: str, seed: int) -> str:
    """Verdict on one simulated study: good, neutral or bad."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    real_counts = (60, 2) if scenario == "benefit" else (60, 60)
    real, truth, _ = draw(real_counts, 40, rng)
    fresh, named, _ = draw((60, 60), 60, rng)
    if scenario == "harm":
        named = 1 - named
    test, test_classes, subjects = draw((120, 120), 60, rng)
    copies = rng.integers(len(real), size=len(fresh))
    if scenario == "null":
        second = rng.integers(len(real), size=len(fresh))
        fresh, named = real[second], truth[second]
    duplicated, both = (
        (np.concatenate([real, more]), np.concatenate([truth, classes]))
        for more, classes in ((real[copies], truth[copies]), (fresh, named))
    )
    arms = {
        "real": (real, truth, 0.0),
        "real_classical": (real, truth, JITTER),
        "real_duplicated": (*duplicated, 0.0),
        "real_synthetic": (*both, 0.0),
        "real_synthetic_classical": (*both, JITTER),
        "synthetic_only": (fresh, named, 0.0),
    }
    probabilities = {
        name: [_fit(x, y, jitter, test, rng) for _ in range(SETTINGS.seeds)] for name, (x, y, jitter) in arms.items()
    }
    cohort = Cohort(torch.zeros(len(test), 1, 1, 1), torch.from_numpy(test_classes), subjects)
    study = Study(("a", "b"), cohort, cohort, cohort, cohort)
    utility = Utility(probabilities, [])
    _, differences = arm_rows(utility, study, SETTINGS, seed)
    over_control, over_classical = (
        arm_interval(utility, "real_synthetic", study, "macro_auc", SETTINGS, seed, against=other)
        for other in ("real_duplicated", "real_classical")
    )
    return judge_use(differences["real_synthetic"], over_control, over_classical).outcome


def _fit(features: Array, classes: Labels, jitter: float, test: Array, rng: np.random.Generator) -> Array:
    """One seed: a bootstrap draw of the training set within classes, jittered; balanced logistic regression."""
    chosen = np.concatenate([rng.choice(np.flatnonzero(classes == c), (classes == c).sum()) for c in (0, 1)])
    drawn = features[chosen] + jitter * rng.normal(size=(len(chosen), FEATURES))
    model = LogisticRegression(class_weight="balanced").fit(drawn, classes[chosen])
    return np.asarray(model.predict_proba(test))


def run(studies: int) -> dict[str, object]:
    """Share of every verdict in every scenario."""
    found: dict[str, object] = {}
    for scenario in SCENARIOS:
        count = studies if scenario == "null" else max(10, studies // 8)
        outcomes = Counter(study_outcome(scenario, seed) for seed in range(count))
        words = {"helps": "good", "silent": "neutral", "harms": "bad"}
        shares = {name: outcomes[key] / count for name, key in words.items()}
        found[scenario] = {"studies": count, **shares}
        print(f"{scenario}: {count} studies, {', '.join(f'{name} {share:.3f}' for name, share in shares.items())}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=200, help="simulated null studies")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": "null_calibration",
        "command": f"python -m benchmarks.null_calibration --studies {options.studies}",
        "rule": RULE,
        "stated_rate": STATED_RATE,
        "scenarios": run(options.studies),
        "seeds": SETTINGS.seeds,
        "resamples": SETTINGS.arm_resamples,
        "python": platform.python_version(),
    }
    write_json(options.out / "null_calibration.json", content)


if __name__ == "__main__":
    main()
