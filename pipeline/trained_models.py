"""Trained models on disk: safetensors weights, the settings that rebuild the network, a card of what it was trained on.

A model folder holds ``settings.json`` (how to build the networks), one ``<network>.safetensors`` each, ``card.json``.
The card holds a digest of the folder, so that a model that was copied on its own can be checked too.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from models.lesion_gan.backbone import Backbone
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator, Upsampling
from models.lesion_gan.virtual_batch import VirtualBatchGenerator
from models.mr_to_ct.generator import ResNetGenerator, Translator, UNetGenerator
from models.mr_to_ct.light import LightGenerator
from models.mr_to_ct.resnet_2017 import ResNet2017
from models.mr_to_ct.volumetric import VolumeUNetGenerator
from pipeline.checkpoints import load_weights, save_tensors, tensor_shapes
from pipeline.errors import InputError, TrainingError
from pipeline.files import folder_manifest, manifest_hash, read_json, sha256_json, write_json
from pipeline.lesion_attributes import LesionAttribute

SETTINGS_FILE, CARD_FILE = "settings.json", "card.json"
DIGEST = "folder_sha256"
"""Where the card holds the digest of the other files and of the rest of the card."""

LESION_GENERATOR = "generator_ema"
DISCRIMINATOR = "discriminator"
MR_TO_CT = "mr_to_ct_ema"
CT_TO_MR = "ct_to_mr"
COORDINATE_CHANNELS = 3
_UNET_DEPTH = 3
LesionGenerator = DCGANGenerator | ClassicGenerator


class LesionGeneratorSettings(BaseModel):
    """What rebuilds a lesion generator; ``classes`` are in the order of the condition's index."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["dcgan", "dcgan_classic"]
    size_px: int
    channels: int
    classes: tuple[str, ...]
    latent_size: int
    width: int
    attributes: tuple[LesionAttribute, ...] = ()
    virtual_batch: int = 0
    upsampling: Upsampling = "transposed"

    @property
    def conditions(self) -> int:
        """Classes that the networks are told; one class alone says nothing, and makes them unconditional: 0."""
        return len(self.classes) if len(self.classes) > 1 else 0

    @property
    def attribute_levels(self) -> tuple[int, ...]:
        """Number of levels of each attribute, 0 for a number."""
        return tuple(len(attribute.levels) for attribute in self.attributes)


class TranslatorSettings(BaseModel):
    """What rebuilds an MR-to-CT (or CT-to-MR) translator and feeds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    generator: Literal["unet", "resnet", "light", "resnet_2017"]
    width: int
    slices: int
    coordinates: bool
    patch_px: int
    blocks: int = 9
    dimensions: Literal[2, 3] = 2
    sequences: tuple[str, ...] = ()

    @property
    def mr_channels(self) -> int:
        """Channels of a stack of MR: its slices in every sequence, one sequence after another."""
        return self.slices * max(1, len(self.sequences))

    @property
    def channels(self) -> int:
        """Channels that go in, coordinates included."""
        return self.mr_channels + (COORDINATE_CHANNELS if self.coordinates else 0)

    @model_serializer(mode="wrap")
    def _without_none(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One sequence is written as before there were several, so that digests stay."""
        told: dict[str, Any] = serialized(self)
        return told if self.sequences else {name: value for name, value in told.items() if name != "sequences"}


def build_lesion_generator(settings: LesionGeneratorSettings, rng: torch.Generator) -> LesionGenerator:
    """An untrained lesion generator.

    Raises:
        InputError: attributes with a family that has none.
    """
    if settings.family == "dcgan":
        virtual = settings.virtual_batch > 0
        build = partial(VirtualBatchGenerator, reference_size=settings.virtual_batch) if virtual else DCGANGenerator
        return build(
            settings.size_px,
            rng,
            image_channels=settings.channels,
            num_classes=settings.conditions,
            latent_size=settings.latent_size,
            width=settings.width,
            upsampling=settings.upsampling,
            attribute_levels=settings.attribute_levels,
        )
    if settings.attributes:
        raise InputError(
            "Only the family dcgan is conditioned on attributes.",
            found=f"{settings.family} with {', '.join(attribute.name for attribute in settings.attributes)}",
            allowed="dcgan, or no attributes",
            change="Set train.lesions.family=dcgan, or prepare.lesions.attributes=[].",
        )
    return ClassicGenerator(
        settings.size_px,
        rng,
        image_channels=settings.channels,
        num_classes=settings.conditions,
        latent_size=settings.latent_size,
        width=settings.width,
    )


def build_translator(settings: TranslatorSettings, rng: torch.Generator, *, back: bool = False) -> Translator:
    """An untrained translator: stacks of slices, plus coordinates where asked for, to stacks of slices.

    Where several MR sequences are one input, the way ``back`` from CT gives all of them, and is given the CT's slices
    once for each.

    Raises:
        InputError: several sequences with networks of three dimensions.
    """
    channels, slices = settings.channels, settings.mr_channels if back else settings.slices
    if settings.dimensions == 3:
        _require_one_sequence(settings.sequences)
        context = channels - settings.slices
        return VolumeUNetGenerator(settings.slices, context, rng, width=settings.width, depth=_UNET_DEPTH)
    if settings.generator == "unet":
        return UNetGenerator(channels, slices, rng, width=settings.width, depth=_UNET_DEPTH)
    if settings.generator == "light":
        return LightGenerator(channels, slices, rng, width=settings.width)
    build = ResNet2017 if settings.generator == "resnet_2017" else ResNetGenerator
    return build(channels, slices, rng, width=settings.width, blocks=settings.blocks)


def _require_one_sequence(sequences: tuple[str, ...]) -> None:
    if sequences:
        raise InputError(
            "Networks of three dimensions take one MR sequence.",
            found=f"dimensions: 3 with {', '.join(sequences)}",
            allowed="dimensions: 2, or one sequence",
            change="Set train.mr_to_ct.dimensions=2, or prepare.mr_to_ct.sequences=[].",
        )


def save_model(folder: Path, settings: BaseModel, networks: Mapping[str, nn.Module], card: Mapping[str, Any]) -> str:
    """Write a model folder; returns the hash of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        save_tensors(folder / f"{name}.safetensors", network.state_dict())
    write_json(folder / SETTINGS_FILE, settings.model_dump(mode="json"))
    (folder / CARD_FILE).unlink(missing_ok=True)
    write_json(folder / CARD_FILE, {**card, DIGEST: folder_digest(card, folder_manifest(folder))})
    return model_hash(folder)


def folder_digest(card: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Digest of a model folder as its card holds it.

    Args:
        card: content of ``card.json``, with or without the digest.
        files: name → SHA-256 of the files; ``card.json`` itself does not count.
    """
    told = {name: value for name, value in card.items() if name != DIGEST}
    return sha256_json({"card": told, "files": {name: own for name, own in files.items() if name != CARD_FILE}})


def _require_intact(folder: Path) -> None:
    """Refuse a folder that differs from the digest in its card; models saved without one pass.

    Raises:
        TrainingError: a file changed after it was saved.
    """
    path = folder / CARD_FILE
    card = read_json(path) if path.is_file() else {}
    if DIGEST in card and card[DIGEST] != folder_digest(card, folder_manifest(folder)):
        raise TrainingError(
            "A model is loaded as it was saved.",
            found="files that differ from the digest in card.json",
            allowed="settings, weights and card of one saved model, unchanged",
            change="Copy the model folder again from its source, or train it again.",
        )


def model_hash(folder: Path) -> str:
    """Hash over every file of a model folder."""
    return manifest_hash(folder_manifest(folder))


def lesion_generator_settings(folder: Path) -> LesionGeneratorSettings:
    """What rebuilds the lesion generator of a model folder, and what it knows."""
    return LesionGeneratorSettings.model_validate(read_json(folder / SETTINGS_FILE))


def load_lesion_generator(folder: Path, device: torch.device) -> tuple[LesionGenerator, LesionGeneratorSettings]:
    """The averaged lesion generator, in evaluation mode.

    Raises:
        TrainingError: weights unreadable, of another architecture, or not as they were saved.
    """
    settings = lesion_generator_settings(folder)
    network = build_lesion_generator(settings, torch.Generator())
    load_weights(folder / f"{LESION_GENERATOR}.safetensors", network)
    _require_intact(folder)
    return network.to(device).eval(), settings


def load_translator(folder: Path, device: torch.device) -> tuple[Translator, TranslatorSettings]:
    """The averaged MR-to-CT translator, in evaluation mode.

    Raises:
        TrainingError: weights unreadable, of another architecture, or not as they were saved.
    """
    settings = TranslatorSettings.model_validate(read_json(folder / SETTINGS_FILE))
    network = build_translator(settings, torch.Generator())
    load_weights(folder / f"{MR_TO_CT}.safetensors", network)
    _require_intact(folder)
    return network.to(device).eval(), settings


def load_back_translator(folder: Path, device: torch.device) -> tuple[Translator, TranslatorSettings] | None:
    """The CT-to-MR translator that was trained beside, in evaluation mode; None where there is none.

    Raises:
        TrainingError: weights unreadable, of another architecture, or not as they were saved.
    """
    path = folder / f"{CT_TO_MR}.safetensors"
    if not path.is_file():
        return None
    settings = TranslatorSettings.model_validate(read_json(folder / SETTINGS_FILE))
    network = build_translator(settings, torch.Generator(), back=True)
    load_weights(path, network)
    _require_intact(folder)
    return network.to(device).eval(), settings


def load_backbone(folder: Path) -> Backbone:
    """The lesion discriminator of a model folder as a feature extractor, in evaluation mode on the CPU.

    Whether it was trained with spectral normalization is told by the names of its weights.

    Raises:
        ValueError: a family whose features hang on the class or on the batch.
        TrainingError: weights unreadable, of another architecture, or not as they were saved.
    """
    settings = lesion_generator_settings(folder)
    path = folder / f"{DISCRIMINATOR}.safetensors"
    rng = torch.Generator()
    shape = {"image_channels": settings.channels, "num_classes": settings.conditions, "width": settings.width}
    if settings.family == "dcgan_classic":
        return Backbone(ClassicDiscriminator(settings.size_px, rng, **shape))
    spectral = any("parametrizations" in name for name in tensor_shapes(path))
    levels = settings.attribute_levels
    discriminator = DCGANDiscriminator(settings.size_px, rng, spectral=spectral, attribute_levels=levels, **shape)
    load_weights(path, discriminator)
    _require_intact(folder)
    return Backbone(discriminator.eval())
