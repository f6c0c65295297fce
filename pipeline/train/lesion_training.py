"""Training of the conditional DCGAN on a prepared image set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.labels import LabelSettings
from models.lesion_gan.classic import ClassicDiscriminator
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.step import Discriminator, LesionGANStep, LesionStepSettings
from models.ranks import ALONE, Ranks
from pipeline.intensity import from_int16
from pipeline.prepared_set import ImageSet
from pipeline.settings import TrainLesionsSettings
from pipeline.train.alarms import Finding
from pipeline.train.data_checks import check_images, variety
from pipeline.train.pictures import tile
from pipeline.train.trainee import ProbeImages
from pipeline.trained_models import (
    LESION_GENERATOR,
    LesionGeneratorSettings,
    build_lesion_generator,
    save_model,
)

_GRID_COLUMNS = 10
_ATTRIBUTE_DROPOUT = 0.1
"""Share of known attributes that are shown as missing."""


class LesionTraining:
    """A `pipeline.train.trainee.Trainee` for lesions. Classes are drawn evenly, images evenly within a class.

    Args:
        images: prepared set; only its training rows are read.
        settings: networks and loop.
        seed: of every random draw.
        device: where the networks live.
        ranks: who shares each batch; every rank draws it whole.
    """

    def __init__(
        self,
        images: ImageSet,
        settings: TrainLesionsSettings,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        check_images(images)
        rows = images.rows("train")
        self.batch_size, self.smallest_batch = settings.batch_size, 2
        self._settings, self._device, self._facts = settings, device, images.facts
        self._pixels = torch.from_numpy(from_int16(np.asarray(images.images[rows]))).to(device)
        classes = torch.from_numpy(images.class_indices()[rows])
        self._members = [torch.nonzero(classes == index).flatten() for index in range(len(images.classes))]
        self._held_out = torch.from_numpy(from_int16(np.asarray(images.images[images.rows("validation")])))
        self.variety: Mapping[str, float] = {
            name: variety(self._pixels[members]) for name, members in zip(images.classes, self._members, strict=True)
        }
        self.mismatches: Sequence[Finding] = ()
        self._seed = seed
        rng = torch.Generator().manual_seed(seed)
        self._draw = torch.Generator().manual_seed(seed + 1)
        self._model_settings = LesionGeneratorSettings(
            family=settings.family,
            size_px=images.images.shape[2],
            channels=images.images.shape[1],
            classes=tuple(images.classes),
            latent_size=settings.latent_size,
            width=settings.width,
            attributes=images.attributes,
            virtual_batch=settings.virtual_batch,
            upsampling=settings.upsampling,
        )
        self._attributes = torch.from_numpy(images.attribute_values()[rows])
        generator = build_lesion_generator(self._model_settings, rng)
        discriminator = _discriminator(self._model_settings, settings, rng)
        self.step = LesionGANStep(generator.to(device), discriminator.to(device), _step_settings(settings), rng, ranks)
        self.generators: Mapping[str, torch.Generator] = {"step": rng, "draw": self._draw}
        fixed = torch.Generator().manual_seed(seed + 2)
        self._grid_classes = torch.arange(len(images.classes)).repeat_interleave(_GRID_COLUMNS).to(device)
        self._grid_latent = torch.randn(len(self._grid_classes), settings.latent_size, generator=fixed).to(device)

    def train_batch(self) -> dict[str, Tensor]:
        """One step on a class-balanced batch."""
        classes = torch.randint(len(self._members), (self.batch_size,), generator=self._draw)
        place = torch.rand(self.batch_size, generator=self._draw)
        flip = torch.rand(self.batch_size, generator=self._draw) < 0.5
        rows = torch.stack(
            [self._members[int(c)][int(p * len(self._members[int(c)]))] for c, p in zip(classes, place, strict=True)]
        )
        batch = self._pixels[rows.to(self._device)]
        if self._settings.mirror:
            batch = torch.where(flip.to(self._device)[:, None, None, None], batch.flip(3), batch)
        return self.step.step(batch, self._conditions(classes, rows).to(self._device))

    def _conditions(self, classes: Tensor, rows: Tensor) -> Tensor:
        """Classes and the attributes of the rows; some are left out, for recipes will not ask for all of them."""
        attributes = self._attributes[rows]
        if attributes.shape[1] == 0:
            return classes
        left_out = torch.rand(attributes.shape, generator=self._draw) < _ATTRIBUTE_DROPOUT
        return torch.cat([classes[:, None].float(), attributes.masked_fill(left_out, torch.nan)], dim=1)

    def learning_rate_factor(self, done: float) -> float:
        """1 until the decay begins, then linear to 0; the instance noise fades meanwhile."""
        self.step.set_noise_factor(1 - done)
        start = self._settings.decay_from
        return 1.0 if done <= start else (1 - done) / (1 - start)

    def grid(self) -> npt.NDArray[np.uint8]:
        """One row a class, from fixed latents; channels lie side by side."""
        images = self.step.sample(self._grid_classes, self._grid_latent)
        beside = torch.cat(list(images.unbind(1)), dim=2)
        return tile(beside.float().cpu().numpy(), _GRID_COLUMNS)

    def probe_images(self, count: int) -> ProbeImages:
        """Training images of all classes in turn, and validation images as they are."""
        draw = torch.Generator().manual_seed(self._seed + 3)
        groups = torch.arange(count) % len(self._members)
        rows = [
            self._members[group][int(torch.randint(len(self._members[group]), (), generator=draw))]
            for group in groups.tolist()
        ]
        held_out = self._held_out[torch.randperm(len(self._held_out), generator=draw)[:count]]
        return ProbeImages(self._pixels[torch.stack(rows)], groups, held_out)

    def probe_fakes(self, count: int) -> Tensor:
        """Images of all classes in turn, from fixed latents."""
        draw = torch.Generator().manual_seed(self._seed + 4)
        latent = torch.randn(count, self._settings.latent_size, generator=draw)
        classes = torch.arange(count) % len(self._members)
        return self.step.sample(classes.to(self._device), latent.to(self._device))

    def save(self, folder: Path, images: int) -> dict[str, Any]:
        """Write the averaged generator and the discriminator."""
        networks = self.step.networks()
        card = {
            "purpose": "synthetic lesion images for research; not for clinical use",
            "images_shown": images,
            "trained_on": {"counts": self._facts["counts"]["train"], "modality": self._facts["modality"]},
            "size_px": self._facts["size_px"],
            "pixel_mm": self._facts["pixel_mm"],
        }
        kept = {name: networks[name] for name in (LESION_GENERATOR, "discriminator")}
        digest = save_model(folder, self._model_settings, kept, card)
        counts = {name: sum(p.numel() for p in network.parameters()) for name, network in kept.items()}
        return {"model_sha256": digest, "parameters": counts}


def _discriminator(
    model: LesionGeneratorSettings, settings: TrainLesionsSettings, rng: torch.Generator
) -> Discriminator:
    sizes = {"image_channels": model.channels, "num_classes": model.conditions, "width": settings.width}
    if settings.family == "dcgan_classic":
        return ClassicDiscriminator(model.size_px, rng, **sizes)
    levels = model.attribute_levels
    return DCGANDiscriminator(model.size_px, rng, spectral=settings.spectral_norm, attribute_levels=levels, **sizes)


def _step_settings(settings: TrainLesionsSettings) -> LesionStepSettings:
    return LesionStepSettings(
        objective=settings.objective,
        diff_augment=settings.diff_augment,
        adaptive_augment=settings.adaptive_augment,
        labels=LabelSettings(settings.label_real, settings.label_softness, settings.label_flip_rate),
        instance_noise=settings.instance_noise,
        r1_gamma=settings.r1_gamma,
        r2_gamma=settings.r2_gamma,
        gradient_penalty=settings.gradient_penalty,
        weight_clip=settings.weight_clip,
        critic_steps=settings.critic_steps,
        ema_decay=settings.ema_decay,
        learning_rate_generator=settings.learning_rate_generator,
        learning_rate_discriminator=settings.learning_rate_discriminator,
        betas=settings.betas,
        gradient_clip=settings.gradient_clip,
        precision=settings.precision,
    )
