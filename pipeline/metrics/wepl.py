"""Water-equivalent path length (WEPL) of parallel beams through a CT, and its error in a pseudo-CT.

    WEPL = ∫ RSP(HU(s)) ds,    in mm of water, along straight beams in axial slices, from many angles

RSP is the proton stopping power relative to water, by a piecewise-linear table. The integral is Joseph's: the beam is
sampled where it crosses each row (or column) of voxel centers, with linear interpolation along that row (Joseph, IEEE
Trans. Med. Imaging 1:192, 1982). Outside the body both images count as nothing.

A difference in WEPL is a difference in range for a proton that crosses the whole body, and errors along one beam may
cancel. It needs no plan, and it is not dose: it says nothing of scatter, of beams that stop, or of where a target
lies. The angles 0 to 180 degrees are all there is, since opposed beams cross the same voxels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipeline.errors import InputError
from pipeline.metrics.pairs import Volume, checked_mask, masked_pair

Array = npt.NDArray[np.float64]

ANGLES_DEG = tuple(float(angle) for angle in range(0, 180, 10))
"""Beam directions in the axial plane, from the first array axis toward the second."""

SHORTEST_PATH_MM = 10.0
"""Beams with a shorter path through the body are left out: at the rim a voxel more or less decides about the error."""


@dataclass(frozen=True)
class StoppingPowerTable:
    """Relative stopping power by HU: linear between the points, constant beyond them.

    Args:
        name: calibration, for reports.
        hu: ascending, at least two.
        rsp: one for each HU, 0 or more; water is 1.

    Raises:
        InputError: sizes differ, HU do not ascend, or a value is negative or not finite.
    """

    name: str
    hu: tuple[float, ...]
    rsp: tuple[float, ...]

    def __post_init__(self) -> None:
        hu, rsp = np.asarray(self.hu), np.asarray(self.rsp)
        fits = len(hu) == len(rsp) >= 2 and np.isfinite(hu).all() and np.isfinite(rsp).all()
        if fits and (np.diff(hu) > 0).all() and (rsp >= 0).all():
            return
        raise InputError(
            "A stopping-power table maps ascending HU to relative stopping powers.",
            found=f"{self.name}: HU {self.hu}, RSP {self.rsp}",
            allowed="two or more points, HU strictly ascending, RSP finite and not negative",
            change="Correct the table; take it from the calibration of the scanner.",
        )

    def of(self, volume_hu: Volume) -> Array:
        """Relative stopping power of every voxel, in the shape of `volume_hu`."""
        return np.asarray(np.interp(np.asarray(volume_hu, dtype=np.float64), self.hu, self.rsp))


ICRU44_70_KEV = StoppingPowerTable(
    "icru44-70keV", hu=(-1000.0, -78.5, 0.0, 43.1, 1593.5, 3071.0), rsp=(0.001, 0.9689, 1.0, 1.0411, 1.6896, 2.3076)
)
"""Generic calibration from tissues of ICRU Report 44: air, adipose tissue, water, skeletal muscle and cortical bone.

HU for 70 keV from mass attenuation coefficients and densities, RSP for protons of 100 MeV by the Bethe formula without
corrections from Z/A and mean excitation energies, all of NIST (Hubbell and Seltzer, "Tables of X-ray mass attenuation
coefficients", tables 2 and 4); the last point continues the line from muscle to bone. Scanners differ by some percent
in bone and in lung: give the table of the scanner where there is one. It matters less for a difference of two images.
"""


@dataclass(frozen=True)
class AngleDifference:
    """|ΔWEPL| of the beams of one direction; fields as in `WeplDifference`."""

    angle_deg: float
    beams: int
    mean_abs_mm: float
    p95_abs_mm: float
    mean_mm: float


@dataclass(frozen=True)
class WeplDifference:
    """WEPL of a pseudo-CT less that of the CT, over all beams of all slices and angles.

    Args:
        table: name of the stopping-power table.
        beams: number of beams that cross the body.
        mean_abs_mm: mean of |ΔWEPL| in mm of water.
        p95_abs_mm: its 95th percentile.
        mean_mm: mean of ΔWEPL; positive when the pseudo-CT is too dense.
        ct_mean_mm: mean WEPL of the CT, to relate the others to.
        by_angle: the same for every direction.
    """

    table: str
    beams: int
    mean_abs_mm: float
    p95_abs_mm: float
    mean_mm: float
    ct_mean_mm: float
    by_angle: tuple[AngleDifference, ...]


def path_lengths_mm(image: Volume, spacing_mm: Sequence[float], angle_deg: float) -> Array:
    """Integrals of an image along parallel beams in the plane of its first two axes.

    Args:
        image: (I, J, K), for example relative stopping power; 0 beyond its border.
        spacing_mm: size of a voxel along the first two axes (and the third, which is not used), in mm.
        angle_deg: direction of the beams, from the first axis toward the second.

    Returns:
        (beams, K) integrals in mm times the unit of the image. Beams lie as far apart as voxels along the finer axis,
        symmetric about the center of the slice, from the most negative offset along (−sin, cos) of the angle.

    Raises:
        InputError: not three axes, or a spacing or angle out of range.
    """
    values = np.asarray(image, dtype=np.float64)
    _check_grid(values.shape, spacing_mm, (angle_deg,))
    weights = _beam_weights(values.shape[0], values.shape[1], spacing_mm, angle_deg)
    return np.asarray(weights @ values.reshape(-1, values.shape[2]))


def wepl_difference(
    ct: Volume,
    pseudo_ct: Volume,
    mask: Volume | None,
    spacing_mm: Sequence[float],
    *,
    angles_deg: Sequence[float] = ANGLES_DEG,
    table: StoppingPowerTable = ICRU44_70_KEV,
) -> WeplDifference:
    """ΔWEPL of a pseudo-CT against a CT on the same grid. No claim about dose: see the head of this file.

    Args:
        ct: (I, J, K) in HU; the first two axes span the axial plane.
        pseudo_ct: of the same shape, in HU.
        mask: body; None takes the whole image, where beams through air alone dilute the mean.
        spacing_mm: size of a voxel along the axes, in mm.
        angles_deg: directions of the beams; those of 180 degrees or more repeat others.
        table: HU to relative stopping power.

    Raises:
        InputError: shapes differ, the mask is empty, a value inside it is not finite, a spacing or angle is out of
            range, or no beam has a path of `SHORTEST_PATH_MM` through the body.
    """
    inside = checked_mask(ct, pseudo_ct, mask)
    _check_grid(inside.shape, spacing_mm, angles_deg)
    stopping_ct, difference = np.zeros(inside.shape), np.zeros(inside.shape)
    reference, prediction = masked_pair(ct, pseudo_ct, mask)
    stopping_ct[inside] = table.of(reference)
    difference[inside] = table.of(prediction) - stopping_ct[inside]  # the integral is linear in RSP: one for both
    beams = [_crossing_beams(stopping_ct, difference, inside, spacing_mm, float(angle)) for angle in angles_deg]
    every_ct, every_delta = (np.concatenate(list(values)) for values in zip(*beams, strict=True))
    if not len(every_delta):
        raise InputError(
            "Water-equivalent path lengths are compared along beams that cross the body.",
            found=f"no beam with a path of {SHORTEST_PATH_MM:g} mm through a mask of {int(inside.sum())} voxels",
            allowed="at least one",
            change="Check the body mask and the spacing.",
        )
    return WeplDifference(
        table.name,
        len(every_delta),
        *_summary(every_delta),
        float(every_ct.mean()),
        tuple(_by_angle(angles_deg, beams)),
    )


def _by_angle(angles_deg: Sequence[float], beams: Sequence[tuple[Array, Array]]) -> Iterator[AngleDifference]:
    for angle, (_, delta) in zip(angles_deg, beams, strict=True):
        if len(delta):
            yield AngleDifference(float(angle), len(delta), *_summary(delta))


def _summary(delta: Array) -> tuple[float, float, float]:
    """Mean and 95th percentile of the absolute value, and the mean."""
    size = np.abs(delta)
    return float(size.mean()), float(np.quantile(size, 0.95)), float(delta.mean())


def _crossing_beams(
    stopping_ct: Array, difference: Array, inside: npt.NDArray[np.bool_], spacing_mm: Sequence[float], angle_deg: float
) -> tuple[Array, Array]:
    """WEPL of the CT and ΔWEPL of the beams of one direction that cross the body, over all slices."""
    slices = inside.shape[2]
    weights = _beam_weights(inside.shape[0], inside.shape[1], spacing_mm, angle_deg)
    crossing = weights @ inside.reshape(-1, slices).astype(np.float64) >= SHORTEST_PATH_MM
    reference, delta = (weights @ image.reshape(-1, slices) for image in (stopping_ct, difference))
    return np.asarray(reference[crossing]), np.asarray(delta[crossing])


def _beam_weights(rows: int, columns: int, spacing_mm: Sequence[float], angle_deg: float) -> sparse.csr_array:
    """(beams, rows · columns) weights of Joseph's integral: mm of path for every voxel of a slice."""
    si, sj = spacing_mm[0], spacing_mm[1]
    along_i, along_j = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    step = min(si, sj)
    half = math.ceil((rows * si * abs(along_j) + columns * sj * abs(along_i)) / 2 / step)
    offsets = np.arange(-half, half + 1) * step
    if abs(along_i) / si >= abs(along_j) / sj:
        steps = (np.arange(rows) - (rows - 1) / 2) * si
        crossed = (offsets[:, None] + steps * along_j) / along_i / sj + (columns - 1) / 2
        return _interpolation(crossed, columns, si / abs(along_i), stride=(columns, 1))
    steps = (np.arange(columns) - (columns - 1) / 2) * sj
    crossed = (steps * along_i - offsets[:, None]) / along_j / si + (rows - 1) / 2
    return _interpolation(crossed, rows, sj / abs(along_j), stride=(1, columns))


def _interpolation(crossed: Array, size: int, length_mm: float, stride: tuple[int, int]) -> sparse.csr_array:
    """Weights of the two voxels about each crossing.

    Args:
        crossed: (beams, steps) index along the other axis, not whole.
        size: voxels along that axis; those beyond it count as 0.
        length_mm: path of the beam from one step to the next.
        stride: flat index of a voxel per step and per voxel along the other axis.
    """
    beams, steps = crossed.shape
    lower = np.floor(crossed).astype(np.int64)
    upper_share = crossed - lower
    beam, step = np.broadcast_to(np.arange(beams)[:, None], crossed.shape), np.arange(steps)
    parts = []
    for index, share in ((lower, 1 - upper_share), (lower + 1, upper_share)):
        kept = (index >= 0) & (index < size)
        parts.append((length_mm * share[kept], beam[kept], (step * stride[0] + index * stride[1])[kept]))
    data, row, column = (np.concatenate(values) for values in zip(*parts, strict=True))
    return sparse.csr_array((data, (row, column)), shape=(beams, steps * size))


def _check_grid(shape: tuple[int, ...], spacing_mm: Sequence[float], angles_deg: Sequence[float]) -> None:
    spacings_fit = len(spacing_mm) in (2, 3) and all(0 < size < math.inf for size in spacing_mm)
    if len(shape) == 3 and spacings_fit and len(angles_deg) and all(math.isfinite(angle) for angle in angles_deg):
        return
    raise InputError(
        "Path lengths need a volume, the size of its voxels and directions.",
        found=f"shape {shape}, spacing {tuple(spacing_mm)} mm, angles {tuple(angles_deg)}",
        allowed="three axes, positive spacings, at least one finite angle",
        change="Score volumes, not slices; add an axis of one voxel to a slice.",
    )
