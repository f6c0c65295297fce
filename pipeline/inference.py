"""Translation of whole volumes by overlapping windows, slice after slice; memory is bounded by one slice's windows.

Windows of the training patch's side are blended with a Gaussian weight by MONAI's sliding-window inference, so that
instance normalization sees what it saw in training and no seams show. The weight is ours: MONAI's own has a floor,
which makes all weights equal along the border of a slice, where windows would then meet in steps. A slice smaller than
a window gets a border of air with coordinates that go on, which is what training shows beyond a slice.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.slice_stacks import BodyFrame, neighbors
from pipeline.trained_models import TranslatorSettings

_WINDOWS_AT_ONCE = 4
_AIR = -1.0
_SIGMA_SHARE = 0.125
"""Standard deviation of the blending weight as a share of the window's side, as in MONAI."""


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

    borders = [_border(side, settings.patch_px) for side in mr_units.shape[1:]]
    padded = np.pad(mr_units, ((0, 0), *borders), constant_values=_AIR)
    places = [np.arange(size) - before for size, (before, _) in zip(padded.shape[1:], borders, strict=True)]
    kept = tuple(slice(before, before + side) for side, (before, _) in zip(mr_units.shape[1:], borders, strict=True))
    weights = _blending_weights(settings.patch_px).to(device)
    frame = BodyFrame.of(mask)
    result = np.empty_like(mr_units)
    for index in range(len(mr_units)):
        stack = padded[neighbors(index, settings.slices, len(mr_units))]
        if settings.coordinates:
            stack = np.concatenate([stack, frame.coordinates(index, places[0], places[1])])
        with torch.inference_mode():
            translated = sliding_window_inference(
                torch.from_numpy(stack[None]).to(device),
                settings.patch_px,
                _WINDOWS_AT_ONCE,
                translator,
                overlap=overlap,
                roi_weight_map=weights,
            )
        result[index] = translated[0, settings.slices // 2][kept].float().cpu().numpy()
        on_slice(index + 1)
    return result


def _blending_weights(side: int) -> Tensor:
    """Gaussian of the distance from the window's center, (side, side), nowhere 0 in float32."""
    place = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    profile = torch.exp(-0.5 * (place / (_SIGMA_SHARE * side)) ** 2)
    return profile[:, None] * profile


def _border(side: int, window: int) -> tuple[int, int]:
    """Pixels before and after a side that is shorter than a window, so that it fills one."""
    missing = max(0, window - side)
    return missing // 2, missing - missing // 2
