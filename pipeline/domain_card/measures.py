"""What is measured of a prepared MR, so that scans outside a model's scope can be told from those inside it.

- *intensity*: quantiles of the units inside the body. Another contrast, an inverted scale, or CT changes them.
- *depth*: mean unit in shells from the skin to the middle of the slices. Fat under the skin is bright in T1, the middle
  of a head is dark; in an inverted scan it is the other way round.
- *body*: width, depth and height of the body in mm, the share of its outline that lies on the edge of the picture, and
  its area at both ends of the field of view.
- *layout*: the body, shrunk to a few cells, which is compared with the mean of those of training scans by correlation.
  Another anatomy, another contrast, a body that is cut off, lies on its side or upside down do not fit it.
- *voxels*: the scan's own voxel size and the plane of its slices, before anything was resampled.

Left and right cannot be told apart by any of these: bodies are too symmetric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pipeline.geometry import Geometry
from pipeline.slice_stacks import BodyFrame

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of the intensity quantiles."""

SHELLS = (0.0, 0.1, 0.2, 0.35, 0.55, 0.8, 1.0)
"""Edges of the shells, as shares of the largest depth in the body."""

CELLS = (8, 16, 16)
"""Cells of the layout along slices, rows, columns."""

ANISOTROPY = 1.2
"""From this ratio of the largest to the next voxel size on, slices have a plane."""

_MOST_SLICES = 48
_PLANES = ("sagittal", "coronal", "axial")


_REGIONS = {
    "BRAIN": "HEAD",
    "SKULL": "HEAD",
    "PROSTATE": "PELVIS",
    "BLADDER": "PELVIS",
    "CERVIX": "PELVIS",
    "UTERUS": "PELVIS",
    "RECTUM": "PELVIS",
}
"""Terms of Body Part Examined (PS3.16 annex L) that scans of one field of view come under."""


@dataclass(frozen=True)
class ScanFacts:
    """What the header says of a scan; None where it says nothing.

    Attributes:
        sequence, body_part: labels.
        pixel_mm: the second smallest voxel size.
        slice_mm: the largest one.
        plane: plane of the slices; None where voxels are nearly cubes.
    """

    sequence: str | None = None
    body_part: str | None = None
    pixel_mm: float | None = None
    slice_mm: float | None = None
    plane: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "ScanFacts":
        """From a row of a prepared set."""
        sequence, body_part, affine = (row.get(name) for name in ("sequence", "body_part", "scan_affine"))
        body_part = _REGIONS.get(str(body_part), body_part)
        if affine is None:
            return cls(sequence, body_part)
        geometry = Geometry((1, 1, 1), np.asarray(affine, dtype=np.float64).reshape(4, 4))
        sizes = sorted(geometry.spacing_mm)
        plane = None
        if sizes[2] > ANISOTROPY * sizes[1]:
            normal = geometry.direction[:, int(np.argmax(geometry.spacing_mm))]
            plane = _PLANES[int(np.argmax(np.abs(normal)))]
        return cls(sequence, body_part, float(sizes[1]), float(sizes[2]), plane)


@dataclass(frozen=True)
class ScopeMeasures:
    """What was measured of one MR.

    Attributes:
        figures: figure by name, see `pipeline.domain_card.card.FIGURES`.
        layout: (cells,) mean units.
        facts: what the header says.
    """

    figures: Mapping[str, float]
    layout: npt.NDArray[np.float32]
    facts: ScanFacts


def measure_mr(
    units: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    spacing_mm: Sequence[float] | None,
    facts: ScanFacts | None = None,
) -> ScopeMeasures:
    """Measure a prepared MR.

    Args:
        units: (K, H, W) in [-1, 1].
        mask: (K, H, W) body mask; with an empty one everything counts as body.
        spacing_mm: (slices, rows, columns); None without geometry, where pixels take the place of mm.
        facts: of the header.
    """
    known, body = facts or ScanFacts(), np.asarray(mask) > 0
    body = body if body.any() else np.ones_like(body)
    frame = BodyFrame.of(body.astype(np.uint8))
    box = tuple(slice(low, high + 1) for low, high in zip(frame.low, frame.high, strict=True))
    sizes = spacing_mm or (1.0, 1.0, 1.0)
    sides = [(cut.stop - cut.start) * size for cut, size in zip(box, sizes, strict=True)]
    pooled = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(units[box]))[None], CELLS)
    inside = units[body]
    figures = {f"intensity_{round(100 * level)}": value for level, value in _quantiles(inside)}
    figures |= {f"depth_{number}": value for number, value in enumerate(_depth_profile(units, body, sizes))}
    figures |= {
        "height": float(np.log(sides[0])),
        "front_to_back": float(np.log(sides[1])),
        "width": float(np.log(sides[2])),
        "cut_off": _cut_off(body),
        **_ends(body),
    }
    for name in ("pixel_mm", "slice_mm"):
        size = getattr(known, name)
        if size is not None:
            figures[name] = float(np.log(size))
    return ScopeMeasures(figures, pooled.numpy().ravel(), known)


def _quantiles(inside: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    return [(level, float(value)) for level, value in zip(LEVELS, np.quantile(inside, LEVELS), strict=True)]


def _depth_profile(units: npt.NDArray[np.float32], body: npt.NDArray[np.bool_], sizes: Sequence[float]) -> list[float]:
    """Mean units in each shell; a shell that is empty takes the mean of the body."""
    filled = np.flatnonzero(body.any(axis=(1, 2)))
    chosen = filled[:: max(1, len(filled) // _MOST_SLICES)]
    framed = np.pad(body[chosen], ((0, 0), (1, 1), (1, 1)))  # the edge of the picture ends the body
    depth = np.stack([ndimage.distance_transform_edt(plane, sampling=sizes[1:])[1:-1, 1:-1] for plane in framed])
    inside = body[chosen]
    values, share = units[chosen][inside], depth[inside] / depth.max()
    shell = np.clip(np.searchsorted(SHELLS, share, side="left") - 1, 0, len(SHELLS) - 2)
    counts = np.bincount(shell, minlength=len(SHELLS) - 1)
    sums = np.bincount(shell, weights=values, minlength=len(SHELLS) - 1)
    return [float(s / c) if c else float(values.mean()) for s, c in zip(sums, counts, strict=True)]


def _ends(body: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Area of the body in the two lowest and the two highest slices of the field of view, over the largest area."""
    areas = body.sum(axis=(1, 2)) / body.sum(axis=(1, 2)).max()
    return {"lower_end": float(areas[:2].mean()), "upper_end": float(areas[-2:].mean())}


def _cut_off(body: npt.NDArray[np.bool_]) -> float:
    """Share of the slices' outlines that lies on the edge of the picture."""
    outline = body & ~ndimage.binary_erosion(body, np.ones((1, 3, 3), bool), border_value=0)
    edge = np.zeros_like(body)
    edge[:, [0, -1]] = edge[:, :, [0, -1]] = True
    return float((outline & edge).sum() / max(1, outline.sum()))
