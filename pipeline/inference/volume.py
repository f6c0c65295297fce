"""Every answer that networks give to a volume, and their mean and spread at each voxel.

Answers come from every plane, from the volume and its mirror image, and from every network. Mean m and sum of squares
q about it are updated answer by answer (Welford, Technometrics 4:419, 1962):

    d = x − m,    m ← m + d / n,    q ← q + d · (x − m),    deviation = √(q / (n − 1))

m and q of the volume lie in files that are mapped into memory, so that memory holds one picture whatever the volume's
size.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.inference.members import Member
from pipeline.inference.slabs import Slabs
from pipeline.inference.views import Plane, SourceVolume, View
from pipeline.inference.windows import HALO_SHARE, WindowGrid, WindowPlan, window_grid

Decode = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


_RELEASED_EVERY = 16
"""Pictures after which mapped pages are given back."""


@dataclass(frozen=True)
class VolumeMaps:
    """Mean and spread of the answers.

    Attributes:
        mean: (K, H, W) in what answers were decoded to; meaningful where an answer was wanted.
        squares: (K, H, W) sum of squares about it.
        answers: at each voxel.
    """

    mean: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float32]
    answers: int

    def deviation(self, index: int) -> npt.NDArray[np.float32]:
        """Standard deviation of the answers in a slice (H, W); 0 with a single one."""
        return np.asarray(np.sqrt(self.squares[index] / max(1, self.answers - 1)))

    def release(self) -> None:
        """Let go of pages that were read or written; the files hold them."""
        for array in (self.mean, self.squares):
            release_pages(array)


def translate_volume(
    source: SourceVolume,
    members: Sequence[Member],
    plan: WindowPlan,
    decode: Decode,
    device: torch.device,
    scratch: Path,
    *,
    planes: Sequence[Plane] = ("axial",),
    mirrored: bool = False,
    on_picture: Callable[[int], None] = lambda done: None,
) -> VolumeMaps:
    """Translate a volume.

    Args:
        source: the volume.
        members: networks, each of which answers.
        plan: windows.
        decode: units of any shape to what is averaged, e.g. HU.
        device: where the networks live.
        scratch: existing folder for two files of the volume's size, float32 each, named after the maps.
        planes: planes in which slices are cut.
        mirrored: ask for the mirror image too.
        on_picture: told the number of pictures done, see `pictures_of`.

    Returns:
        Maps that lie in ``scratch``.
    """
    shape = source.stored.shape
    mean, squares = (
        np.lib.format.open_memmap(scratch / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        for name in ("mean", "squares")
    )
    sides, done, answers = (False, True) if mirrored else (False,), 0, 0
    for plane in planes:
        view = View(source, plane)
        filled = set(view.filled)
        own = [
            _asked(view, member, plan, mirrored=side).pictures(view.filled, device)
            for member in members
            for side in sides
        ]
        for index in range(view.depth):
            if index in filled:
                running = view.place(mean, index), view.place(squares, index)
                for number, said in enumerate(own, answers + 1):
                    _welford(*running, decode(next(said)), number)
            done += 1
            on_picture(done)
            if done % _RELEASED_EVERY == 0:
                for array in (mean, squares, source.stored, *source.more, source.mask, source.near):
                    release_pages(array)
        answers += len(own)
    return VolumeMaps(mean, squares, answers)


def translate_slices(
    source: SourceVolume, member: Member, plan: WindowPlan, decode: Decode, device: torch.device, indices: Sequence[int]
) -> Iterator[npt.NDArray[np.float32]]:
    """What one network says of some axial slices, (H, W) each, decoded."""
    asked = _asked(View(source, "axial"), member, plan, mirrored=False)
    for said in asked.pictures(indices, device):
        yield decode(said)


def pictures_of(shape: Sequence[int], planes: Sequence[Plane]) -> int:
    """Pictures that a volume (K, H, W) is cut into."""
    return sum(shape[("axial", "coronal", "sagittal").index(plane)] for plane in planes)


def release_pages(array: npt.NDArray[Any]) -> None:
    """Let go of the pages of a memory-mapped array; what was written stays in its file. Others are left alone."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


class _Pictures:
    """One network of two dimensions in one view, straight or mirrored."""

    def __init__(self, view: View, member: Member, grid: WindowGrid, plan: WindowPlan, *, mirrored: bool) -> None:
        self._view, self._member, self._grid, self._plan, self._mirrored = view, member, grid, plan, mirrored

    def pictures(self, indices: Sequence[int], device: torch.device) -> Iterator[npt.NDArray[np.float32]]:
        """Units at the voxels of the pictures asked for."""
        view, grid, mirrored = self._view, self._grid, self._mirrored
        for index in indices:
            inside = view.inside(view.wanted(index), grid.box, mirrored=mirrored)
            stack = view.stack(index, self._member.settings, grid.box, mirrored=mirrored)
            (said,) = self._member.answer(
                np.ascontiguousarray(stack), inside, grid, self._plan, device, middle_alone=True
            )
            yield view.restore(said, grid.box, mirrored=mirrored)


def _asked(view: View, member: Member, plan: WindowPlan, *, mirrored: bool) -> _Pictures | Slabs:
    kind = Slabs if member.settings.dimensions == 3 else _Pictures
    return kind(view, member, _grid_of(view, member, plan), plan, mirrored=mirrored)


def _grid_of(view: View, member: Member, plan: WindowPlan) -> WindowGrid:
    side = member.settings.patch_px
    body = view.body(int(side * HALO_SHARE))
    return window_grid(body, view.shape, side, member.divisor, plan)


def _welford(
    mean: npt.NDArray[np.float32], squares: npt.NDArray[np.float32], value: npt.NDArray[np.float32], number: int
) -> None:
    """Take the ``number``-th value in, in place."""
    step = value - mean
    mean += step / np.float32(number)
    squares += step * (value - mean)
