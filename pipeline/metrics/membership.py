"""What a synthetic cohort gives away about who was trained on: membership inference and authenticity.

- Membership inference: an attacker who holds the cohort and a real image scores it by its likeness to the nearest
  synthetic image. AUC is the chance that a training image scores above a held-out one; 0.5 gives nothing away
  (black-box attack of Hilprecht et al., PoPETs 2019).
- Authenticity: share of synthetic images that lie farther from their nearest training image than that image lies from
  its own nearest training neighbor (Alaa et al., ICML 2022). Held-out real images give the value to expect.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.metrics.bootstrap import Interval, bootstrap_interval
from pipeline.metrics.classification import binary_auc
from pipeline.metrics.kid import Features, checked_cohorts
from pipeline.metrics.precision_recall import distances


def membership_auc(
    members: npt.NDArray[np.floating],
    others: npt.NDArray[np.floating],
    member_subjects: Sequence[str],
    other_subjects: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 500,
) -> Interval:
    """AUC of likeness to the cohort, training against held-out images, with an interval over subjects.

    Args:
        members: (t,) likeness of each training image to its nearest synthetic image, higher is more alike.
        others: (h,) the same of held-out images.
        member_subjects: subject of every training image.
        other_subjects: subject of every held-out image; a name shared with a training image is another cluster.
        rng: source of the resamples.
        resamples: at least 100.

    Raises:
        InputError: a side is empty, sizes differ, or as `bootstrap_interval`.
    """
    if (
        not len(members)
        or not len(others)
        or len(members) != len(member_subjects)
        or len(others) != len(other_subjects)
    ):
        raise InputError(
            "Membership inference compares training with held-out images.",
            found=f"{len(members)} and {len(others)} images, {len(member_subjects)} and {len(other_subjects)} subjects",
            allowed="one subject an image, at least one image on either side",
            change="Hold out some subjects.",
        )
    scores = np.concatenate([members, others]).astype(np.float64)
    member = np.arange(len(scores)) < len(members)
    subjects = [f"in {name}" for name in member_subjects] + [f"out {name}" for name in other_subjects]
    return bootstrap_interval(
        lambda chosen: binary_auc(member[chosen], scores[chosen]), subjects, rng, resamples=resamples
    )


def likeness(real: Features, synthetic: Features) -> npt.NDArray[np.float64]:
    """Minus the distance of every real image to its nearest synthetic image, (m,).

    Raises:
        InputError: numbers of features differ, a cohort is empty, or a value is not finite.
    """
    x, y = checked_cohorts(real, synthetic, smallest=1)
    return np.asarray(-distances(x, y).min(axis=1))


def authentic(train: Features, images: Features) -> npt.NDArray[np.bool_]:
    """Whether each image is farther from its nearest training image than that one is from its own neighbor, (n,).

    Args:
        train: (t, d) features, t at least 2.
        images: (n, d) features of synthetic, or of held-out real images.

    Raises:
        InputError: numbers of features differ, fewer than two training images, or a value is not finite.
    """
    reference, _ = checked_cohorts(train, train, smallest=2)
    _, suspects = checked_cohorts(train, images, smallest=1)
    among = distances(reference, reference)
    np.fill_diagonal(among, np.inf)
    between = distances(suspects, reference)
    nearest = between.argmin(axis=1)
    return np.asarray(between[np.arange(len(between)), nearest] > among.min(axis=1)[nearest])
