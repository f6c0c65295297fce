"""Generators that take turns in a cohort, and the images that they make of latents and conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.intensity import to_int16
from pipeline.lesion_attributes import encoded
from pipeline.trained_models import LesionGenerator, LesionGeneratorSettings, load_lesion_generator


@dataclass(frozen=True)
class Member:
    """A generator of the cohort.

    Attributes:
        folder: of the trained model.
        sha256: of its content.
    """

    folder: Path
    sha256: str


class Ensemble:
    """Generators that know the same."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        loaded = [load_lesion_generator(member.folder, device) for member in members]
        self.members, self.device = members, device
        self.generators: list[LesionGenerator] = [generator for generator, _ in loaded]
        self.settings: LesionGeneratorSettings = loaded[0][1]
        self.latent_sizes = [settings.latent_size for _, settings in loaded]
        for _, other in loaded:
            if (other.classes, other.attributes, other.size_px) != (
                self.settings.classes,
                self.settings.attributes,
                self.settings.size_px,
            ):
                raise InputError(
                    "The generators of an ensemble make images of the same classes, attributes and size.",
                    found="one that differs",
                    allowed="trainings of one prepared set",
                    change="Correct generate.lesions.ensemble.",
                )

    @torch.inference_mode()
    def images(self, rows: Sequence[dict[str, Any]]) -> npt.NDArray[np.int16]:
        """Images (N, C, H, W) of candidate rows, as stored."""
        made: list[npt.NDArray[np.int16]] = [np.empty(0, np.int16)] * len(rows)
        for number, generator in enumerate(self.generators):
            chosen = [index for index, row in enumerate(rows) if row["model"] == number]
            if chosen:
                own = [rows[index] for index in chosen]
                latent = torch.stack(
                    [_latent(row["seed"], self.latent_sizes[number]) * row["truncation"] for row in own]
                )
                images = generator(latent.to(self.device), self._conditions(own).to(self.device))
                for index, image in zip(chosen, to_int16(images.float().cpu().numpy()), strict=True):
                    made[index] = image
        return np.stack(made)

    def _conditions(self, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
        classes = torch.tensor([self.settings.classes.index(row["lesion_class"]) for row in rows])
        if not self.settings.attributes:
            return classes
        values = encoded(self.settings.attributes, [row["attributes"] for row in rows])
        return torch.cat([classes[:, None].float(), torch.from_numpy(values)], dim=1)


def _latent(seed: int, size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))
