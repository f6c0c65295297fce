"""What a pseudo-CT has to beat: the best constant, and the best lookup from MR intensity to HU.

Both minimize the mean absolute error over the training voxels they see, and the median is what minimizes it. A network
that does not beat the lookup has learned nothing but the histogram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.metrics.pairs import Volume

AIR_HU = -1000.0
"""What baselines say outside the body."""


@dataclass(frozen=True)
class ConstantCT:
    """One HU everywhere inside the body.

    Args:
        hu: the constant.
    """

    hu: float

    @classmethod
    def fit(cls, cts: Sequence[Volume], masks: Sequence[Volume]) -> "ConstantCT":
        """Median HU of all training voxels inside the body.

        Args:
            cts: volumes in HU.
            masks: body masks of the same shapes.

        Raises:
            InputError: nothing to fit.
        """
        return cls(float(np.median(_inside(cts, masks))))

    def predict(self, mr: Volume, mask: Volume) -> npt.NDArray[np.float32]:
        """Pseudo-CT of the shape of `mr`: the constant inside the mask, air outside."""
        return np.where(np.asarray(mask) > 0, self.hu, AIR_HU).astype(np.float32)


@dataclass(frozen=True)
class IntensityLookup:
    """HU as a function of MR intensity alone, constant within bins.

    Args:
        edges: (bins + 1,) rising bin edges in MR units; intensities beyond them take the first or last bin.
        hu: (bins,) HU of the bins.
    """

    edges: npt.NDArray[np.float64]
    hu: npt.NDArray[np.float64]

    @classmethod
    def fit(
        cls, mrs: Sequence[Volume], cts: Sequence[Volume], masks: Sequence[Volume], bins: int = 64
    ) -> "IntensityLookup":
        """Median HU of every MR bin over all training voxels inside the body.

        Edges are quantiles of the intensities, and are intensities that occur, so that no bin is empty.

        Args:
            mrs: volumes of MR units, as encoded for the networks.
            cts: registered volumes in HU, same shapes.
            masks: body masks of the same shapes.
            bins: largest number of bins, at least 1.

        Raises:
            InputError: nothing to fit, or shapes differ.
        """
        mr, ct = _inside(mrs, masks), _inside(cts, masks)
        if len(mr) != len(ct) or bins < 1:
            raise InputError(
                "A lookup is fitted to registered pairs.",
                found=f"{len(mr)} MR voxels, {len(ct)} CT voxels, {bins} bins",
                allowed="equal shapes pair by pair, at least one bin",
                change="Check that MR and CT were resampled onto one grid.",
            )
        edges = np.unique(np.quantile(mr, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
        # A discrete MR whose values all sit on edges would leave the last one without a bin of its own.
        edges = np.append(edges, np.nextafter(edges[-1], np.inf))
        place = np.clip(np.searchsorted(edges, mr, side="right") - 1, 0, len(edges) - 2)
        order = np.argsort(place, kind="stable")
        groups = np.split(ct[order], np.cumsum(np.bincount(place, minlength=len(edges) - 1))[:-1])
        return cls(edges, np.array([np.median(group) for group in groups]))

    def predict(self, mr: Volume, mask: Volume) -> npt.NDArray[np.float32]:
        """Pseudo-CT of the shape of `mr`: the lookup inside the mask, air outside."""
        place = np.clip(np.searchsorted(self.edges, np.asarray(mr), side="right") - 1, 0, len(self.hu) - 1)
        return np.where(np.asarray(mask) > 0, self.hu[place], AIR_HU).astype(np.float32)


def _inside(volumes: Sequence[Volume], masks: Sequence[Volume]) -> npt.NDArray[np.float64]:
    """All values inside the masks, as one vector."""
    shapes_fit = len(volumes) == len(masks) and all(
        np.shape(volume) == np.shape(mask) for volume, mask in zip(volumes, masks, strict=False)
    )
    if shapes_fit and any(np.any(mask) for mask in masks):
        return np.concatenate(
            [np.asarray(volume, np.float64)[np.asarray(mask) > 0] for volume, mask in zip(volumes, masks, strict=True)]
        )
    raise InputError(
        "A baseline is fitted to voxels inside the body.",
        found=f"{len(volumes)} volumes, {len(masks)} masks, shapes fit: {shapes_fit}",
        allowed="one mask of equal shape for each volume, not all of them empty",
        change="Check the training split and its body masks.",
    )
