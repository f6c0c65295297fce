"""Training of the CycleGAN on a prepared volume set."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.mr_to_ct.discriminator import MultiScaleDiscriminator, PatchDiscriminator
from models.mr_to_ct.players import Discriminator, MRToCTNetworks
from models.mr_to_ct.registration import DeformationNetwork
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.mr_to_ct.volumetric import VolumePatchDiscriminator
from models.ranks import ALONE, Ranks
from pipeline.domain_card import SCOPE_KEY, DomainCard, domain_card
from pipeline.errors import InputError
from pipeline.generate_settings import GenerateMRToCTSettings
from pipeline.inference import Member, WindowPlan
from pipeline.intensity import PiecewiseLinearMap
from pipeline.prepared_set import VolumeSet
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.alarms import Finding
from pipeline.train.data_checks import check_slices, variety
from pipeline.train.domain_balance import compare_domains
from pipeline.train.patch_augmentation import PatchAugmentation
from pipeline.train.patch_sampler import PatchSampler
from pipeline.train.pictures import tile
from pipeline.train.trainee import ProbeImages
from pipeline.train.weak_labels import weak_labels_of
from pipeline.trained_models import CT_TO_MR, MR_TO_CT, TranslatorSettings, build_translator, save_model
from pipeline.translated_case import Networks, calibrated

BONE = {"HU": 250.0, "grey": 250.0}
"""Where bone begins, by unit of the CT."""

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
        ranks: who shares each batch; every rank draws it whole.

    Raises:
        InputError: the training split cannot serve the supervision asked for.
    """

    def __init__(
        self,
        volumes: VolumeSet,
        settings: TrainMRToCTSettings,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batch_size, self.smallest_batch = settings.batch_size, 1
        self._settings, self._facts = settings, volumes.facts
        rng = torch.Generator().manual_seed(seed)
        draw = torch.Generator().manual_seed(seed + 1)
        self._device = device
        self._augment = PatchAugmentation(settings.augment_shape, settings.augment_look)
        weak = weak_labels_of(volumes) if settings.lambda_weak > 0 else None
        self._sampler = PatchSampler(volumes, settings, draw, device, weak=weak)
        self._grid_batch = PatchSampler(volumes, settings, torch.Generator().manual_seed(seed + 2), device).draw(
            _GRID_ROWS
        )
        slices = self._sampler.central_slices(_COMPARED_SLICES)
        check_slices(slices)
        self.variety: Mapping[str, float] = {
            name: variety(torch.from_numpy(stack)) for name, stack in slices.items() if len(stack) > 1
        }
        self._compared = compare_domains(volumes, settings)
        self.mismatches: Sequence[Finding] = tuple(each.finding() for each in self._compared if each.differs)
        self._volumes, self._seed = volumes, seed
        self.model_settings = TranslatorSettings(
            generator=settings.generator,
            width=settings.width,
            slices=settings.slices,
            coordinates=settings.coordinates,
            patch_px=settings.patch_px,
            blocks=settings.blocks,
            dimensions=settings.dimensions,
            sequences=volumes.sequences,
        )
        self.step = MRToCTStep(self._build(rng, device), _step_settings(settings, volumes.facts), rng, ranks)
        self._probe_mr: Tensor | None = None
        self.generators: Mapping[str, torch.Generator] = {"step": rng, "draw": draw}
        self._trained_on = {
            "mr_volumes": len(volumes.volumes("MR", ["train"])),
            "ct_volumes": len(volumes.volumes("CT", ["train"])),
        }

    def _build(self, rng: torch.Generator, device: torch.device) -> MRToCTNetworks:
        settings = self._settings
        mr_to_ct = build_translator(self.model_settings, rng).to(device)
        ct_to_mr = build_translator(self.model_settings, rng, back=True).to(device)
        registration = DeformationNetwork(settings.slices, rng).to(device)
        judges = self._judge(settings.slices, rng), self._judge(self.model_settings.mr_channels, rng)
        return MRToCTNetworks(mr_to_ct, ct_to_mr, *judges, registration)

    def _judge(self, slices: int, rng: torch.Generator) -> Discriminator:
        width, scales = self._settings.discriminator_width, self._settings.discriminator_scales
        if self._settings.dimensions == 3:
            return VolumePatchDiscriminator(slices, rng, width=width).to(self._device)
        if scales == 1:
            return PatchDiscriminator(slices, rng, width=width).to(self._device)
        return MultiScaleDiscriminator(slices, rng, width=width, scales=scales).to(self._device)

    def train_batch(self) -> dict[str, Tensor]:
        """One step on a fresh batch of patches."""
        return self.step.step(self._augment(self._sampler.draw(self.batch_size), self.generators["draw"]))

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
        kept = {name: networks[name] for name in (MR_TO_CT, CT_TO_MR) if name in networks}
        card = {
            "purpose": "pseudo-CT for research; not for clinical use",
            "images_shown": images,
            "supervision": self._settings.supervision,
            "trained_on": self._trained_on,
            "unit": self._facts["unit"],
            "spacing_mm": self._facts["spacing_mm"],
            "domain_balance": [each.facts() for each in self._compared],
            SCOPE_KEY: self._domain_card(kept).model_dump(mode="json"),
        }
        digest = save_model(folder, self.model_settings, kept, card)
        counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
        differing = [each.found for each in self._compared if each.differs]
        return {"model_sha256": digest, "parameters": counts, "domains_differ": differing}

    def _domain_card(self, networks: Mapping[str, nn.Module]) -> DomainCard:
        """What was learned from, and what validation cases come to: later cases are held against both."""
        members = {name: Member.of(network, self.model_settings) for name, network in networks.items()}
        held_out = calibrated(
            self._volumes,
            self._volumes.volumes("MR", ["validation"]),
            Networks((members[MR_TO_CT],), members.get(CT_TO_MR)),
            GenerateMRToCTSettings(),
            WindowPlan(),
            self._device,
        )
        return domain_card(self._volumes).model_copy(update={"held_out": held_out})


def _step_settings(settings: TrainMRToCTSettings, facts: Mapping[str, Any]) -> MRToCTStepSettings:
    knots = np.asarray(facts["ct_map"]["knots_hu"], np.float64)
    linear = 2 * (knots - knots[0]) / (knots[-1] - knots[0]) - 1
    encode = PiecewiseLinearMap(tuple(facts["ct_map"]["knots_hu"]), tuple(facts["ct_map"]["knots_unit"])).encode
    same = {
        field.name: getattr(settings, field.name)
        for field in fields(MRToCTStepSettings)
        if hasattr(settings, field.name)
    }
    return MRToCTStepSettings(
        **same,
        sequences=max(1, len(facts.get("sequences", ()))),
        learning_rate_generator=settings.learning_rate,
        learning_rate_discriminator=settings.learning_rate,
        warm_steps=-(-settings.warm_images // settings.batch_size),
        bone_level=float(encode(np.asarray(BONE[facts["unit"]]))),
        ct_knots_unit=tuple(facts["ct_map"]["knots_unit"]),
        ct_knots_linear=tuple(float(place) for place in linear),
    )
