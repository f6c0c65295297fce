"""What runs in the parsing process for models from elsewhere: read and check a model folder, evaluating nothing.

Only safetensors and JSON are opened. Every file is checked against ``manifest.json`` where the folder came whole, the
header of the weights is read here before the library sees it, and names and shapes must be those of the network that
the settings describe. Reasons never quote what a file holds.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pipeline.errors import QuarantineError, ScanloomError
from pipeline.files import sha256_file
from pipeline.model_sharing.safetensors_header import check_header
from pipeline.settings import CLASS_NAME, Track
from pipeline.trained_models import (
    CARD_FILE,
    DIGEST,
    DISCRIMINATOR,
    LESION_GENERATOR,
    MR_TO_CT,
    SETTINGS_FILE,
    LesionGeneratorSettings,
    TranslatorSettings,
    build_lesion_generator,
    build_translator,
    folder_digest,
    load_backbone,
)

MANIFEST_FILE, MODEL_FOLDER, INPUTS_FILE = "manifest.json", "model", "inputs.json"
CT_TO_MR = "ct_to_mr"
_JSON_LIMIT_BYTES = 1 << 20
_LARGEST = {"size_px": 128, "channels": 4, "latent_size": 4096, "width": 1024, "slices": 5, "patch_px": 1024}
"""Largest numbers that settings may name: a network is built from them."""

INPUT_FACTS = ("classes", "size_px", "pixel_mm", "modality", "channels", "unit", "ct_map", "spacing_mm", "sequences")
"""Facts of a prepared set that tell what a network must be fed."""

_LONGEST_INPUT = 20_000
_LARGEST_REFERENCE = 4096
_MOST_CLASSES = 256
_MOST_ATTRIBUTES = 32
_MOST_SEQUENCES = 4
_MOST_WORDS = 1024
"""Classes, attributes and levels together."""

_NETWORKS: dict[Track, tuple[str, str]] = {
    "lesions": (LESION_GENERATOR, DISCRIMINATOR),
    "mr_to_ct": (MR_TO_CT, CT_TO_MR),
}
"""The network that a model must have, and the one that it may have."""

CheckedAgainst = Literal["manifest", "digest in card.json", "nothing: unverified"]

_COPY = "Ask for it again, and copy it whole."


@dataclass(frozen=True)
class IncomingModel:
    """A model folder that was found sound.

    Attributes:
        track: lesions or mr_to_ct.
        files: name → SHA-256 of what is to be taken over.
        settings: content of ``settings.json``.
        inputs: content of ``inputs.json``, empty where there is none.
        checked_against: what told that the files are those that were saved.
    """

    track: Track
    files: dict[str, str]
    settings: dict[str, Any]
    inputs: dict[str, Any]
    checked_against: CheckedAgainst


def read_shared_model(folder: Path) -> IncomingModel:
    """Check a shared model.

    Args:
        folder: what `scanloom export-model` wrote, or the ``model`` folder of a training.

    Raises:
        QuarantineError: NO_MODEL, NOT_PLAIN_FILE, UNEXPECTED_FILE, CHANGED, BAD_JSON, BAD_SETTINGS, BAD_HEADER,
            OTHER_NETWORK, NON_FINITE.
    """
    whole = (folder / MANIFEST_FILE).is_file()
    model = folder / MODEL_FOLDER if whole else folder
    files = _plain_files(model)
    settings = _read_object(model / SETTINGS_FILE)
    card = _read_object(model / CARD_FILE)
    track: Track = "lesions" if "family" in settings else "mr_to_ct"
    needed, optional = _NETWORKS[track]
    odd = set(files) - {SETTINGS_FILE, CARD_FILE, f"{needed}.safetensors", f"{optional}.safetensors"}
    if odd or f"{needed}.safetensors" not in files:
        found = f"{len(odd)} files of other names; weights of the needed network: {f'{needed}.safetensors' in files}"
        advice = f"A model is {SETTINGS_FILE}, {CARD_FILE} and .safetensors; pickles (.pt, .pth, .pkl) are never read."
        raise QuarantineError("UNEXPECTED_FILE", found, advice)
    digests = {name: sha256_file(path) for name, path in files.items()}
    inputs: dict[str, Any] = {}
    if whole:
        inputs = _known_inputs(_read_object(folder / INPUTS_FILE))
        _check_manifest(folder, digests)
    _check_digest(card, digests)
    for name, path in files.items():
        if name.endswith(".safetensors"):
            check_header(path)
    _check_networks(track, model, settings, files)
    against: CheckedAgainst = "digest in card.json" if DIGEST in card else "nothing: unverified"
    return IncomingModel(track, digests, settings, inputs, "manifest" if whole else against)


def _plain_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir() or not (folder / SETTINGS_FILE).exists():
        advice = f"Give the folder that `scanloom export-model` wrote, with {MANIFEST_FILE} and {MODEL_FOLDER}/."
        raise QuarantineError("NO_MODEL", f"no folder with {SETTINGS_FILE}", advice)
    entries = sorted(folder.iterdir())
    if any(entry.is_symlink() or not entry.is_file() for entry in entries):
        raise QuarantineError("NOT_PLAIN_FILE", "links, folders or devices beside the weights", "Copy plain files.")
    return {entry.name: entry for entry in entries}


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a bounded size."""
    try:
        if path.is_symlink() or path.stat().st_size > _JSON_LIMIT_BYTES:
            found = f"{path.name} is a link, or of more than {_JSON_LIMIT_BYTES} bytes"
            raise QuarantineError("BAD_JSON", found, _COPY)
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise QuarantineError("BAD_JSON", f"{path.name}: {type(error).__name__}", _COPY) from None
    if not isinstance(content, dict):
        raise QuarantineError("BAD_JSON", f"{path.name} holds no object", _COPY)
    return content


def _known_inputs(told: dict[str, Any]) -> dict[str, Any]:
    """The entries that are looked at later, each of a bounded size."""
    known = {name: told[name] for name in INPUT_FACTS if name in told}
    long = sum(len(json.dumps(value)) > _LONGEST_INPUT for value in known.values())
    if long:
        raise QuarantineError("BAD_JSON", f"{INPUTS_FILE}: {long} entries of more than {_LONGEST_INPUT} signs", _COPY)
    return known


def _check_manifest(folder: Path, digests: dict[str, str]) -> None:
    told = _read_object(folder / MANIFEST_FILE)
    own = {f"{MODEL_FOLDER}/{name}": digest for name, digest in digests.items()}
    own[INPUTS_FILE] = sha256_file(folder / INPUTS_FILE)
    changed = [name for name, digest in own.items() if told.get(name) != digest]
    missing = [name for name in told if name.startswith(f"{MODEL_FOLDER}/") and name not in own]
    if changed or missing:
        found = f"{len(changed)} files differ from {MANIFEST_FILE}, {len(missing)} are missing"
        raise QuarantineError("CHANGED", found, _COPY)


def _check_digest(card: dict[str, Any], digests: dict[str, str]) -> None:
    """The folder against its own card; weights from elsewhere may have a card without a digest."""
    if DIGEST in card and card[DIGEST] != folder_digest(card, digests):
        raise QuarantineError("CHANGED", f"files that differ from the digest in {CARD_FILE}", _COPY)


def _check_networks(track: Track, model: Path, settings: dict[str, Any], files: dict[str, Path]) -> None:
    """Build every network that the settings describe and load its weights."""
    own: LesionGeneratorSettings | TranslatorSettings
    rng = torch.Generator()
    build: Callable[[], torch.nn.Module]
    needed, optional = _NETWORKS[track]
    try:
        _check_sizes(settings)
        if track == "lesions":
            own = LesionGeneratorSettings.model_validate(settings)
            build = _lesion_builder(own, rng)
        else:
            own = TranslatorSettings.model_validate(settings)
            build = _translator_builder(own, rng)
        network = build()
    except (ValidationError, ValueError, TypeError, ScanloomError) as error:
        found = f"settings that describe no known network ({type(error).__name__})"
        advice = "It may come from a newer scanloom: update, or ask for a model of your version."
        raise QuarantineError("BAD_SETTINGS", found, advice) from None
    _fit(files[f"{needed}.safetensors"], network)
    if f"{optional}.safetensors" in files and isinstance(own, TranslatorSettings):
        _fit(files[f"{optional}.safetensors"], _translator_builder(own, rng, back=True)())
    elif f"{optional}.safetensors" in files:
        _check_discriminator(model, files[f"{optional}.safetensors"], settings["family"])


def _check_discriminator(model: Path, path: Path, family: str) -> None:
    _check_finite(load_file(path))
    if family != "dcgan":
        return  # no one builds it again
    try:
        load_backbone(model)
    except (ScanloomError, ValueError):
        found = "a discriminator that does not fit the settings"
        raise QuarantineError("OTHER_NETWORK", found, "Ask for a model that was exported whole.") from None


def _lesion_builder(settings: LesionGeneratorSettings, rng: torch.Generator) -> Callable[[], torch.nn.Module]:
    words = [*settings.classes]
    for attribute in settings.attributes:
        words += [attribute.name, *attribute.levels]
    known = 1 <= len(settings.classes) <= _MOST_CLASSES and len(settings.attributes) <= _MOST_ATTRIBUTES
    if not known or len(words) > _MOST_WORDS or not all(re.fullmatch(CLASS_NAME, word) for word in words):
        raise ValueError
    return lambda: build_lesion_generator(settings, rng)


def _translator_builder(
    settings: TranslatorSettings, rng: torch.Generator, *, back: bool = False
) -> Callable[[], torch.nn.Module]:
    names = settings.sequences
    if len(names) > _MOST_SEQUENCES or not all(re.fullmatch(CLASS_NAME, name) for name in names):
        raise ValueError
    return partial(build_translator, settings, rng, back=back)


def _check_sizes(settings: dict[str, Any]) -> None:
    for name, largest in _LARGEST.items():
        value = settings.get(name, 1)
        if type(value) is not int or not 1 <= value <= largest:
            raise ValueError
    if not 0 <= int(settings.get("virtual_batch", 0)) <= _LARGEST_REFERENCE:
        raise ValueError


def _fit(path: Path, network: torch.nn.Module) -> None:
    """Names and shapes of a file against a network, and that every number is finite."""
    tensors = load_file(path)
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sum(own.get(name) != given.get(name) for name in own.keys() | given.keys())
    if odd:
        found = f"{odd} of {len(own)} tensors are of another name or shape than the settings say"
        raise QuarantineError("OTHER_NETWORK", found, "Use settings and weights of one model.")
    _check_finite(tensors)


def _check_finite(tensors: dict[str, torch.Tensor]) -> None:
    bad = sum(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())
    if bad:
        raise QuarantineError("NON_FINITE", f"{bad} tensors with NaN or infinite weights", "Train it again.")
