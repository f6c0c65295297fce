"""Which candidates of a cohort are rejected: images outside the manifold of real ones, and copies of training images.

Both limits come from real validation images, which neither the generator nor the judges of a cohort learn from:

- *manifold*: distance to the nearest training image of the class, in texture features standardized on the training
  images. The limit is the ⌈(h + 1)(1 − a)⌉-th smallest distance of h validation images, so that a further real image
  is rejected with probability a at the most (split conformal prediction: Vovk, Gammerman and Shafer 2005).
- *memorized*: the highest correlation with a training image over mirrors and shifts; the limit is the one of the
  release gate (`pipeline.metrics.memorization.copy_threshold`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.features import FeatureScale, TextureExtractor
from pipeline.generate_settings import CohortFilterSettings
from pipeline.intensity import from_int16
from pipeline.metrics.copy_search import nearest_copies
from pipeline.metrics.memorization import copy_threshold
from pipeline.metrics.precision_recall import distances
from pipeline.prepared_set import ImageSet

ACCEPTED, OUT_OF_MANIFOLD, MEMORIZED = "accepted", "out_of_manifold", "memorized"
LEAST_HELD_OUT = 20
"""Validation images that a limit needs; a class with fewer shares the limit of all classes."""

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CohortFilter:
    """Judges candidates.

    Attributes:
        train: features of the training images by class index; empty where the manifold is not looked at.
        scale: of the features.
        manifold_limits: longest distance by class index.
        train_planes: (t, H, W) training images; None where copies are not looked for.
        copy_limit: highest correlation.
    """

    train: Mapping[int, npt.NDArray[np.float32]]
    scale: FeatureScale | None
    manifold_limits: Mapping[int, float]
    train_planes: Images | None
    copy_limit: float

    @classmethod
    def fit(cls, prepared: ImageSet, settings: CohortFilterSettings) -> "CohortFilter":
        """Calibrate on the validation images.

        Raises:
            InputError: too few of them.
        """
        rows = {split: prepared.rows(split) for split in ("train", "validation")}
        if len(rows["validation"]) < LEAST_HELD_OUT:
            raise InputError(
                "The limits of a cohort's filter are calibrated on real validation images.",
                found=f"{len(rows['validation'])} validation images",
                allowed=f"at least {LEAST_HELD_OUT}",
                change="Set prepare.split.validation higher, or turn generate.lesions.filter off.",
            )
        images = {split: from_int16(np.asarray(prepared.images[chosen])) for split, chosen in rows.items()}
        train_planes, copy_limit = None, math.inf
        if settings.memorized:
            train_planes = images["train"].mean(axis=1)
            copy_limit = copy_threshold(nearest_copies(train_planes, images["validation"].mean(axis=1)).correlation)
        if not settings.manifold:
            return cls({}, None, {}, train_planes, copy_limit)
        features = {split: TextureExtractor()(torch.from_numpy(stack)) for split, stack in images.items()}
        scale = FeatureScale.fit(features["train"])
        scaled = {split: scale.bounded(values) for split, values in features.items()}
        classes = {split: prepared.class_indices()[chosen] for split, chosen in rows.items()}
        train = {int(index): scaled["train"][classes["train"] == index] for index in np.unique(classes["train"])}
        far = {
            index: _nearest(members, scaled["validation"][classes["validation"] == index])
            for index, members in train.items()
        }
        return cls(train, scale, _limits(far, settings.manifold_share), train_planes, copy_limit)

    def judge(self, images: Images, lesion_class: int) -> list[str]:
        """What becomes of each candidate: accepted, or why not. A copy is named as one wherever it lies.

        Args:
            images: (N, C, H, W) in network units.
            lesion_class: their index.
        """
        verdicts = np.full(len(images), ACCEPTED, dtype=object)
        if self.scale is not None:
            features = self.scale.bounded(TextureExtractor()(torch.from_numpy(images)))
            far = _nearest(self.train[lesion_class], features) > self.manifold_limits[lesion_class]
            verdicts[far] = OUT_OF_MANIFOLD
        if self.train_planes is not None:
            copies = nearest_copies(self.train_planes, images.mean(axis=1)).correlation > self.copy_limit
            verdicts[copies] = MEMORIZED
        return [str(verdict) for verdict in verdicts]

    def facts(self, classes: list[str]) -> dict[str, Any]:
        """The limits, for the record of a cohort."""
        return {
            "longest_distance": {classes[index]: limit for index, limit in self.manifold_limits.items()} or None,
            "highest_correlation": self.copy_limit if self.train_planes is not None else None,
        }


def conformal_limit(innocent: npt.NDArray[np.floating], share: float) -> float:
    """The ⌈(h + 1)(1 − share)⌉-th smallest of h values, the largest where there are fewer than that."""
    rank = min(len(innocent), math.ceil((len(innocent) + 1) * (1 - share)))
    return float(np.sort(innocent)[rank - 1])


def _limits(far: Mapping[int, npt.NDArray[np.float64]], share: float) -> dict[int, float]:
    together = conformal_limit(np.concatenate(list(far.values())), share)
    return {
        index: conformal_limit(values, share) if len(values) >= LEAST_HELD_OUT else together
        for index, values in far.items()
    }


def _nearest(train: npt.NDArray[np.float32], features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Distance of each row of ``features`` to its nearest row of ``train``."""
    if not len(features):
        return np.empty(0)
    nearest: npt.NDArray[np.float64] = distances(features.astype(np.float64), train.astype(np.float64)).min(axis=1)
    return nearest
