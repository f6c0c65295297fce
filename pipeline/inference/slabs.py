"""Answers of a network that translates stacks of k slices at once: windows along the slices too, and their blending.

Windows along the slices have the overlap and the profile of those in the plane, see `pipeline.inference.windows`, so
that the weight of a voxel in a window is a product of three. Windows come in the order of the slices, and a slice is
handed on when no later window holds it: memory holds k slices of sums, whatever the volume's size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.inference.members import Member
from pipeline.inference.views import View
from pipeline.inference.windows import WindowGrid, WindowPlan, windows_along


class Slabs:
    """One network in the axial view, straight or mirrored.

    Args:
        view: axial.
        member: a network of three dimensions.
        grid: windows in the plane.
        plan: overlap, blending, precision.
        mirrored: whether the mirror image is asked for.
    """

    def __init__(self, view: View, member: Member, grid: WindowGrid, plan: WindowPlan, *, mirrored: bool) -> None:
        self._view, self._member, self._grid, self._plan, self._mirrored = view, member, grid, plan, mirrored
        self._slices = member.settings.slices
        first, end = (view.filled[0], view.filled[-1] + 1) if view.filled else (0, view.depth)
        self._starts, self._weights = windows_along(first, end, self._slices, view.depth, plan)

    def pictures(self, indices: Sequence[int], device: torch.device) -> Iterator[npt.NDArray[np.float32]]:
        """Units at the voxels of the slices asked for, in their order.

        Args:
            indices: in increasing order, each a slice in which an answer is wanted.
            device: where the network lives.
        """
        waiting, sums = list(indices), dict[int, npt.NDArray[np.float32]]()
        for number, start in enumerate(self._starts):
            covered = [index for index in waiting if start <= index < start + self._slices]
            if covered:
                said = self._answer(start, covered, device)
                for index in covered:
                    part = np.asarray(self._weights[number, index - start] * said[index - start], np.float32)
                    sums[index] = sums[index] + part if index in sums else part
            later = self._starts[number + 1] if number + 1 < len(self._starts) else self._view.depth
            while waiting and waiting[0] < later:
                yield self._view.restore(sums.pop(waiting.pop(0)), self._grid.box, mirrored=self._mirrored)

    def _answer(self, start: int, covered: Sequence[int], device: torch.device) -> npt.NDArray[np.float32]:
        """(k, rows, columns) of the grid's box."""
        view, box = self._view, self._grid.box
        wanted = np.any([view.wanted(index) for index in covered], axis=0)
        inside = view.inside(wanted, box, mirrored=self._mirrored)
        stack = view.stack(start + self._slices // 2, self._member.settings, box, mirrored=self._mirrored)
        return self._member.answer(
            np.ascontiguousarray(stack), inside, self._grid, self._plan, device, middle_alone=False
        )
