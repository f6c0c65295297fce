"""Training of the CycleGAN on a prepared volume set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.step import MRToCTBatch, MRToCTNetworks, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings
from pipeline.domain_card import SCOPE_KEY, domain_card
from pipeline.errors import InputError
from pipeline.prepared_set import VolumeSet
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.data_checks import check_slices, variety
from pipeline.train.patch_sampler import PatchSampler
from pipeline.train.pictures import tile
from pipeline.train.trainee import ProbeImages
from pipeline.trained_models import MR_TO_CT, TranslatorSettings, build_translator, save_model

_GRID_ROWS = 6
_COMPARED_SLICES = 128
_PROBE_BATCH = 16


class MRToCTTraining:
    """A `pipeline.train.trainee.Trainee` for MR-to-CT translation.

    Args:
        volumes: prepared set; only its training rows are read.
        settings: networks, supervision, loop.
        seed: of every random draw.
        device: where the networks live.

    Raises:
        InputError: the training split cannot serve the supervision asked for.
    """

    def __init__(self, volumes: VolumeSet, settings: TrainMRToCTSettings, seed: int, device: torch.device) -> None:
        self.batch_size, self.smallest_batch = settings.batch_size, 1
        self._settings, self._facts = settings, volumes.facts
        rng = torch.Generator().manual_seed(seed)
        draw = torch.Generator().manual_seed(seed + 1)
        self._sampler = PatchSampler(volumes, settings, draw, device)
        self._grid_batch = PatchSampler(volumes, settings, torch.Generator().manual_seed(seed + 2), device).draw(
            _GRID_ROWS
        )
        slices = self._sampler.central_slices(_COMPARED_SLICES)
        check_slices(slices)
        self.variety: Mapping[str, float] = {
            name: variety(torch.from_numpy(stack)) for name, stack in slices.items() if len(stack) > 1
        }
        self._volumes, self._seed, self._device = volumes, seed, device
        self._model_settings = TranslatorSettings(
            generator=settings.generator,
            width=settings.width,
            slices=settings.slices,
            coordinates=settings.coordinates,
            patch_px=settings.patch_px,
        )
        self.step = MRToCTStep(self._build(rng, device), _step_settings(settings), rng)
        self._probe_mr: Tensor | None = None
        self.generators: Mapping[str, torch.Generator] = {"step": rng, "draw": draw}
        self._trained_on = {
            "mr_volumes": len(volumes.volumes("MR", ["train"])),
            "ct_volumes": len(volumes.volumes("CT", ["train"])),
        }

    def _build(self, rng: torch.Generator, device: torch.device) -> MRToCTNetworks:
        settings = self._settings
        mr_to_ct = build_translator(self._model_settings, rng).to(device)
        ct_to_mr = build_translator(self._model_settings, rng).to(device)
        judges = [PatchDiscriminator(settings.slices, rng, width=settings.discriminator_width).to(device) for _ in "ab"]
        return MRToCTNetworks(mr_to_ct, ct_to_mr, judges[0], judges[1])

    def train_batch(self) -> dict[str, Tensor]:
        """One step on a fresh batch of patches."""
        return self.step.step(self._sampler.draw(self.batch_size))

    def learning_rate_factor(self, done: float) -> float:
        """Constant, then linear to zero (Zhu 2017)."""
        start = self._settings.decay_from
        return 1.0 if done < start else max(0.0, (1 - done) / (1 - start))

    def grid(self) -> npt.NDArray[np.uint8]:
        """Training patches: MR | pseudo-CT | a CT (the registered one where supervision knows it)."""
        batch: MRToCTBatch = self._grid_batch
        middle = self._settings.slices // 2
        pseudo_ct = self.step.translate(batch.mr)
        columns = [part[:, middle].float().cpu().numpy() for part in (batch.mr, pseudo_ct, batch.ct)]
        return tile(np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:]), 3)

    def probe_images(self, count: int) -> ProbeImages:
        """CT patches of the training split, and of the validation split where that has both modalities."""
        real = self._fixed_batch(count, "train").ct
        try:
            held_out = self._fixed_batch(count, "validation").ct
        except InputError:  # no validation subjects, or none with what the supervision needs
            held_out = real[:0]
        middle = slice(self._settings.slices // 2, self._settings.slices // 2 + 1)
        return ProbeImages(real[:, middle], torch.zeros(count, dtype=torch.long), held_out[:, middle], "_ct")

    def probe_fakes(self, count: int) -> Tensor:
        """Pseudo-CT of fixed MR patches of the training split."""
        if self._probe_mr is None or len(self._probe_mr) != count:
            self._probe_mr = self._fixed_batch(count, "train").mr
        middle = self._settings.slices // 2
        parts = [self.step.translate(part) for part in torch.split(self._probe_mr, _PROBE_BATCH)]
        return torch.cat(parts)[:, middle : middle + 1]

    def _fixed_batch(self, count: int, split: Literal["train", "validation"]) -> MRToCTBatch:
        draw = torch.Generator().manual_seed(self._seed + 3)
        return PatchSampler(self._volumes, self._settings, draw, self._device, split).draw(count)

    def save(self, folder: Path, images: int) -> dict[str, Any]:
        """Write the averaged MR-to-CT translator, and the way back where it was trained."""
        networks = self.step.networks()
        kept = {name: networks[name] for name in (MR_TO_CT, "ct_to_mr") if name in networks}
        card = {
            "purpose": "pseudo-CT for research; not for clinical use",
            "images_shown": images,
            "supervision": self._settings.supervision,
            "trained_on": self._trained_on,
            "unit": self._facts["unit"],
            "spacing_mm": self._facts["spacing_mm"],
            SCOPE_KEY: domain_card(self._volumes).model_dump(mode="json"),
        }
        digest = save_model(folder, self._model_settings, kept, card)
        counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
        return {"model_sha256": digest, "parameters": counts}


def _step_settings(settings: TrainMRToCTSettings) -> MRToCTStepSettings:
    return MRToCTStepSettings(
        supervision=settings.supervision,
        objective=settings.objective,
        lambda_adversarial=settings.lambda_adversarial,
        lambda_cycle=settings.lambda_cycle,
        lambda_identity=settings.lambda_identity,
        lambda_paired=settings.lambda_paired,
        outside_weight=settings.outside_weight,
        pool_size=settings.pool_size,
        ema_decay=settings.ema_decay,
        learning_rate_generator=settings.learning_rate,
        learning_rate_discriminator=settings.learning_rate,
        betas=settings.betas,
        gradient_clip=settings.gradient_clip,
        precision=settings.precision,
    )
