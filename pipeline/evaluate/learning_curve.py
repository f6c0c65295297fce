"""How much is a real subject worth, and how much a synthetic image: AUC over training subjects and added images."""

import numpy as np

from pipeline.classifier import predict
from pipeline.evaluate.cohorts import Cohort, Study
from pipeline.evaluate.leakage import LeakageAudit, clean_audit
from pipeline.evaluate.utility import trained
from pipeline.evaluate.utility_scores import Utility, arm_interval
from pipeline.evaluate.utility_tables import Row, cells, scored
from pipeline.records import ProgressCallback
from pipeline.results import Column, ResultTable
from pipeline.settings import EvaluateLesionsSettings


def curve_table(
    study: Study,
    settings: EvaluateLesionsSettings,
    seed: int,
    audit: LeakageAudit | None,
    progress: ProgressCallback,
    device: str = "cpu",
) -> ResultTable:
    """One row a share of real training subjects and a ratio of synthetic to real images.

    Shares are nested: a larger one holds the subjects of every smaller one. A point whose training set lacks a class,
    or for which the cohort is too small, is left out.

    Raises:
        InputError: there is no audit of leakage, or it found leaks.
    """
    clean_audit(audit)
    points = [(s, r) for s in sorted(settings.learning_real_shares) for r in sorted(settings.learning_synthetic_ratios)]
    rows: list[Row] = []
    left_out: list[str] = []
    for number, (share, ratio) in enumerate(points, 1):
        real = share_of_subjects(study.train, share, seed)
        added = _synthetic(study.synthetic, round(ratio * len(real)), seed)
        if added is not None and len(set(real.classes.tolist())) == len(study.class_names):
            together = real.together_with(added)
            models = [
                trained(together, len(study.class_names), settings, seed + k, classical=False, device=device)
                for k in range(settings.seeds)
            ]
            found = Utility({"point": [predict(m, study.test.images).double().numpy() for m in models]}, [])
            counts: Row = {
                "share": share,
                "subjects": len(set(real.subjects)),
                "real": len(real),
                "ratio": ratio,
                "synthetic": len(added),
            }
            rows.append(counts | cells("macro_auc", arm_interval(found, "point", study, "macro_auc", settings, seed)))
        else:
            left_out.append(f"{share:.0%} of the subjects with {ratio:g} : 1".replace("%", " %"))
        progress("points of the learning curve", number, len(points))
    gaps = f" Left out, as synthetic images or a class are missing: {', '.join(left_out)}." if left_out else ""
    return ResultTable(
        key="learning_curve",
        title="Learning curve",
        caption=f"The budget of the arms everywhere: {settings.classifier_steps} steps, {settings.seeds} seeds.{gaps}",
        columns=(
            Column(key="subjects", title="training subjects", digits=0),
            Column(key="real", title="real images", digits=0),
            Column(key="ratio", title="synthetic : real", digits=1),
            Column(key="synthetic", title="synthetic images", digits=0),
            scored("macro_auc", "macro AUC"),
        ),
        rows=tuple(rows),
    )


def share_of_subjects(cohort: Cohort, share: float, seed: int) -> Cohort:
    """The images of a share of the subjects, in an order drawn once: larger shares hold smaller ones."""
    names = np.random.default_rng(seed).permutation(sorted(set(cohort.subjects)))
    kept = set(names[: max(1, round(share * len(names)))].tolist())
    return cohort.part(np.array([name in kept for name in cohort.subjects], dtype=np.bool_))


def _synthetic(cohort: Cohort, count: int, seed: int) -> Cohort | None:
    """A random part of the cohort; None where it is too small."""
    if count > len(cohort):
        return None
    chosen = np.zeros(len(cohort), np.bool_)
    chosen[np.random.default_rng(seed).permutation(len(cohort))[:count]] = True
    return cohort.part(chosen)
