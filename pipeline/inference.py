"""Translation of whole volumes by overlapping windows, slice after slice; memory is bounded by one slice's windows.

Windows of the training patch's side are blended with a Gaussian weight by MONAI's sliding-window inference, so that
instance normalization sees what it saw in training and no seams show.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.slice_stacks import BodyFrame, neighbors
from pipeline.trained_models import TranslatorSettings

_WINDOWS_AT_ONCE = 4


def translate_volume(
    translator: Callable[[Tensor], Tensor],
    settings: TranslatorSettings,
    mr_units: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    overlap: float,
    device: torch.device,
    on_slice: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Translate an MR volume slice by slice.

    Args:
        translator: (N, k + c, P, P) -> (N, k, P, P), in evaluation mode.
        settings: slices, coordinates and patch side that the translator was trained with.
        mr_units: (K, H, W) in [-1, 1].
        mask: (K, H, W) body mask, the frame of the coordinates.
        overlap: share of a window that neighboring windows share, in [0, 1).
        device: where the translator lives.
        on_slice: told the number of slices done.

    Returns:
        (K, H, W) in [-1, 1]; the middle slice of each stack.
    """
    from monai.inferers import sliding_window_inference  # takes seconds to import

    depth, rows, columns = mr_units.shape
    frame = BodyFrame.of(mask)
    result = np.empty_like(mr_units)
    for index in range(depth):
        stack = mr_units[neighbors(index, settings.slices, depth)]
        if settings.coordinates:
            stack = np.concatenate([stack, frame.coordinates(index, np.arange(rows), np.arange(columns))])
        with torch.inference_mode():
            translated = sliding_window_inference(
                torch.from_numpy(stack[None]).to(device),
                settings.patch_px,
                _WINDOWS_AT_ONCE,
                translator,
                overlap=overlap,
                mode="gaussian",
                padding_mode="replicate",
            )
        result[index] = translated[0, settings.slices // 2].float().cpu().numpy()
        on_slice(index + 1)
    return result
