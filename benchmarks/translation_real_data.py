"""Real MR-CT slices for `translation_real`: head pairs in grey levels, and semi-synthetic pairs in HU.

Both come as pictures of one size. A set is split by case (or patient) in three rotations: every third case is tested.
Scores count inside the outline of the true CT, which no method sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.io import imread

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.intensity import CT_MAP, GREY_MAP, robust_mr_scale, to_int16
from pipeline.prepared_set import VolumeSet, VolumeSetWriter, read_volume_set

SIZE_PX, PIXEL_MM, ROTATIONS = 128, 2.0, 3
GREY_OUTLINE, GREY_BONE, BONE_HU = 20, 250.0, 250.0
_CLOSING_PX = 2
_BEND_PX = 16.0

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One case of a set.

    Attributes:
        name: of the case or patient.
        mr: (K, H, W) intensities of 8-bit pictures.
        ct: (K, H, W) grey levels or HU.
        outline: (K, H, W), where errors are counted.
    """

    name: str
    mr: Volume
    ct: Volume
    outline: Mask


@dataclass(frozen=True)
class PairSet:
    """Cases of one kind, in a fixed order.

    Attributes:
        unit: HU or grey.
        cases: sorted by name.
    """

    unit: str
    cases: Sequence[Case]

    @property
    def bone(self) -> float:
        """Values from here on (grey levels), or above (HU), are bone."""
        return BONE_HU if self.unit == "HU" else GREY_BONE

    def split(self, rotation: int) -> tuple[list[Case], list[Case]]:
        """Training and test cases."""
        test = [case for place, case in enumerate(self.cases) if place % ROTATIONS == rotation]
        return [case for case in self.cases if case not in test], test


def read_head_pairs(folder: Path) -> PairSet:
    """``MR/<case><slice>.png`` and ``CT/...`` of 256 pixels, averaged to 128; the last three digits are the slice."""
    names: dict[str, list[str]] = {}
    for path in sorted((folder / "MR").glob("*.png")):
        names.setdefault(path.stem[:-3], []).append(path.name)
    cases = []
    for case in sorted(names, key=int):
        mr, ct = (np.stack([_shrunk(imread(folder / side / name)) for name in names[case]]) for side in ("MR", "CT"))
        cases.append(Case(case, mr, ct, _body("grey", ct)))
    return PairSet("grey", cases)


def read_semisynthetic(folder: Path, prefix: str) -> PairSet:
    """``MR/GT_<patient>-<slice>.png`` and ``CT/<same>.npy`` in HU, patients whose name starts with ``prefix``."""
    names: dict[str, list[str]] = {}
    for path in sorted((folder / "MR").glob(f"GT_{prefix}*.png")):
        names.setdefault(path.stem.removeprefix("GT_").split("-")[0], []).append(path.stem)
    cases = []
    for case in sorted(names):
        mr = np.stack([imread(folder / "MR" / f"{name}.png") for name in names[case]]).astype(np.float32)
        ct = np.stack([np.load(folder / "CT" / f"{name}.npy") for name in names[case]]).astype(np.float32)
        cases.append(Case(case, mr, ct, _body("HU", ct)))
    return PairSet("HU", cases)


def read_set(work: Path, name: str) -> PairSet:
    """A set by name: head_pairs, semi_head, semi_pelvis."""
    if name == "head_pairs":
        return read_head_pairs(work / "head_pairs")
    return read_semisynthetic(work / "semi", {"semi_head": "1B", "semi_pelvis": "1P"}[name])


def mr_units(case: Case) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """The MR of a case as networks see it, and its body mask, both (K, H, W)."""
    mask = mr_body_mask(case.mr.transpose(2, 1, 0), (PIXEL_MM,) * 3).transpose(2, 1, 0)
    scale = robust_mr_scale(case.mr, mask.astype(bool))
    return scale.encode(case.mr), np.ascontiguousarray(mask).astype(np.uint8)


def write_training_set(
    folder: Path, pairs: PairSet, train: Sequence[Case], moved: Mapping[str, Volume] | None = None
) -> VolumeSet:
    """A prepared set of the training cases; ``moved`` puts another CT in the place of a case's own."""
    ct_map = CT_MAP if pairs.unit == "HU" else GREY_MAP
    with VolumeSetWriter(folder) as writer:
        for case in train:
            units, mask = mr_units(case)
            ct = case.ct if moved is None else moved[case.name]
            row = {
                "subject_id": case.name,
                "series_id": case.name,
                "split": "train",
                "pair_volume": -1,
                "own_grid": True,
                "affine": None,
                "mr_low": 0.0,
                "mr_high": 1.0,
            }
            first = writer.add(row | {"modality": "MR"}, to_int16(units), mask)
            outline = _body(pairs.unit, ct).astype(np.uint8)
            second = writer.add(row | {"modality": "CT"}, np.rint(ct).astype(np.int16), outline)
            writer.link(first, second)
        knots = {"knots_hu": list(ct_map.knots_hu), "knots_unit": list(ct_map.knots_unit)}
        writer.close({"unit": pairs.unit, "ct_map": knots, "spacing_mm": None})
    return read_volume_set(folder)


def _shrunk(picture: npt.NDArray[np.uint8]) -> Volume:
    grey = picture if picture.ndim == 2 else picture[..., 0]
    share = grey.shape[0] // SIZE_PX
    blocks = grey.reshape(SIZE_PX, share, SIZE_PX, share).astype(np.float32)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _body(unit: str, ct: Volume) -> Mask:
    """Outline of the CT: (K, H, W)."""
    if unit == "grey":
        return _outline(ct > GREY_OUTLINE)
    return np.asarray(ct_body_mask(ct.transpose(2, 1, 0), (PIXEL_MM,) * 3).transpose(2, 1, 0), np.bool_)


def _outline(dense: Mask) -> Mask:
    """Slices closed and filled, the largest part of each: the head inside the skull's outer face, no head holder."""
    border = 2 * _CLOSING_PX
    kept = []
    for plane in dense:
        closed = ndimage.binary_closing(np.pad(plane, border), iterations=_CLOSING_PX)
        parts, count = ndimage.label(ndimage.binary_fill_holes(closed[border:-border, border:-border]))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept.append((parts == sizes.argmax()) & (parts > 0))
    return np.stack(kept)


def moved_cts(cases: Sequence[Case], pixels: float, seed: int, air: float) -> dict[str, Volume]:
    """CTs that no longer lie right: every slice is shifted by up to ``pixels`` and bent by half as much.

    The bend is a smooth random field, so that no shift of the whole undoes it.
    """
    rng, moved = np.random.default_rng(seed), {}
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    for case in cases:
        planes = []
        for plane in case.ct:
            down, right = rng.uniform(-pixels, pixels, 2)
            bends = ndimage.gaussian_filter(rng.standard_normal((2, SIZE_PX, SIZE_PX)), (0, _BEND_PX, _BEND_PX))
            bends *= 0.5 * pixels / np.abs(bends).max()
            places = [rows + down + bends[0], columns + right + bends[1]]
            planes.append(ndimage.map_coordinates(plane, places, order=1, cval=air))
        moved[case.name] = np.stack(planes).astype(np.float32)
    return moved
