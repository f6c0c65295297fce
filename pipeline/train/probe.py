"""Compares what a generator makes with real images at every log row, in wavelet scattering features.

The real images and the inputs of the generator are drawn once and nothing is drawn later, so that rows differ by what
the networks learned, and a resumed training has the same rows.
"""

import torch
from torch import Tensor

from models.diagnostics import energy_gap, relative_spread
from pipeline.features import FeatureScale, TextureExtractor
from pipeline.metrics.precision_recall import manifold_scores
from pipeline.train.trainee import Trainee

EDGE_PX = 16
"""Images are resized to this edge: a third of the time of 32, and enough to see collapse."""
NEIGHBORS = 5
"""k of the manifold behind the recall (Kynkäänniemi 2019)."""


class Probe:
    """Measures of fidelity and diversity.

    Args:
        trainee: the training.
        count: images compared; fewer than `NEIGHBORS` + 1 measure nothing.
    """

    def __init__(self, trainee: Trainee, count: int) -> None:
        self._trainee, self._count = trainee, count
        self._active = count > NEIGHBORS
        if not self._active:
            return
        images = trainee.probe_images(count)
        self._extract = TextureExtractor(edge=EDGE_PX)
        features = self._extract(images.real)
        self._scale = FeatureScale.fit(features)
        self._real = torch.from_numpy(self._scale.apply(features))
        self._groups, self._target = images.groups.cpu(), images.target
        enough = len(images.held_out) > NEIGHBORS
        self._held_out = self._scale.apply(self._extract(images.held_out)) if enough else None

    def measure(self) -> dict[str, float]:
        """Terms of the next log row.

        Returns:
            `feature_diversity` (mean distance of two fakes over that of two real images), `class_diversity` (the same
            within the class that has least), `fidelity_gap` (`models.diagnostics.energy_gap`) and, where there are
            enough validation images, `held_out_recall` (share of them inside a ball around a fake).
        """
        if not self._active:
            return {}
        fake = torch.from_numpy(self._scale.apply(self._extract(self._trainee.probe_fakes(self._count))))
        terms = {
            "feature_diversity": float(relative_spread(fake, self._real)),
            "fidelity_gap": float(energy_gap(self._real, fake)),
        }
        within = [float(relative_spread(fake[rows], self._real[rows])) for rows in self._members()]
        if len(within) > 1:
            terms["class_diversity"] = min(within)
        if self._held_out is not None:
            terms["held_out_recall"] = manifold_scores(self._held_out, fake.numpy(), NEIGHBORS).recall
        return {name + self._target: value for name, value in terms.items()}

    def _members(self) -> list[Tensor]:
        """Row numbers of each class that has at least two."""
        kinds = sorted(set(self._groups.tolist()))
        rows = [torch.nonzero(self._groups == kind).flatten() for kind in kinds]
        return [part for part in rows if len(part) > 1]
