"""What training images must be before any training starts."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from models.lesion_gan.generator import IMAGE_SIZES
from pipeline.errors import InputError
from pipeline.files import sha256_bytes
from pipeline.prepared_set import ImageSet

LEAST_DISTINCT = 2
"""A class with fewer different pictures can only be copied."""
_COMPARED = 256
"""Images of a class whose pairwise differences are looked at."""


def check_images(images: ImageSet) -> None:
    """Refuse an image set that no lesion GAN can learn from.

    Raises:
        InputError: voxels that are not int16, other channels than stated, a size that no network has, an unknown
            class, or a class with fewer than `LEAST_DISTINCT` different training images that show anything.
    """
    _check_array(images)
    names = set(images.table["lesion_class"].to_list())
    if not names <= set(images.classes):
        raise InputError(
            "Every image must be of a class that the set names.",
            found=f"{len(names - set(images.classes))} further classes",
            allowed=", ".join(images.classes),
            change="Prepare the images again.",
        )
    rows, classes = images.rows("train"), images.class_indices()
    poor = {}
    for index, name in enumerate(images.classes):
        members = images.images[rows[classes[rows] == index]]
        kinds = {sha256_bytes(image.tobytes()) for image in members if image.min() < image.max()}
        if len(kinds) < LEAST_DISTINCT:
            flat = sum(bool(image.min() == image.max()) for image in members)
            poor[name] = f"{name}: {len(members)} images, {flat} of one grey, {len(kinds)} different ones beside them"
    if poor:
        raise InputError(
            "A class can only be learned from different images.",
            found="; ".join(poor.values()),
            allowed=f"at least {LEAST_DISTINCT} different training images a class, and better some hundred",
            change="Add images of these classes, or leave the classes out.",
        )


def _check_array(images: ImageSet) -> None:
    array, channels = images.images, images.facts.get("channels", images.images.shape[1])
    fits = array.ndim == 4 and array.shape[2] == array.shape[3] and array.shape[2] in IMAGE_SIZES
    if array.dtype != np.int16 or not fits or array.shape[1] != channels:
        raise InputError(
            "Training images must be square, in int16 storage, with the channels that the set states.",
            found=f"{array.dtype} of shape {array.shape}, {channels} channels stated",
            allowed=f"int16 (N, {channels}, side, side) with a side of {', '.join(map(str, IMAGE_SIZES))}",
            change="Prepare the images again.",
        )


def check_slices(slices: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Refuse modalities without two different slices that show anything.

    Args:
        slices: name of the modality → (N, H, W); modalities without any are another check's business.

    Raises:
        InputError: names the modality.
    """
    for name, stack in slices.items():
        kinds = {sha256_bytes(image.tobytes()) for image in stack if image.min() < image.max()}
        if len(stack) and len(kinds) < LEAST_DISTINCT:
            raise InputError(
                "A translation can only be learned from different slices.",
                found=f"{name}: {len(stack)} training slices with body, {len(kinds)} different ones that show anything",
                allowed=f"at least {LEAST_DISTINCT} of each modality",
                change="Add subjects, and check that the scans are not empty.",
            )


def variety(images: Tensor) -> float:
    """Mean difference of two images over the contrast within one: about 1 for unlike images, 0 for copies of one.

    Both are mean absolute differences of grey levels: of two images at one pixel, and of an image from its own mean.

    Args:
        images: (N, C, H, W) in units; the first `_COMPARED` are looked at, N ≥ 2.
    """
    flat = images[:_COMPARED].flatten(1).double()
    contrast = (flat - flat.mean(dim=1, keepdim=True)).abs().mean()
    difference = F.pdist(flat, p=1).mean() / flat.shape[1]
    return float(difference / contrast.clamp_min(torch.finfo(torch.float64).tiny))
