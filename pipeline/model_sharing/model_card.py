"""Card of a shared model: what it is for, what it was trained on, how it scored, where it must not be used.

The idea of a card that travels with a model is that of Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
It holds counts, settings and figures of whole cohorts, and nothing that leads to a subject.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.export.data_card import INTENDED_USE
from pipeline.export.dataset import Release
from pipeline.results import Results

TITLES = {"lesions": "Generator of synthetic lesion images", "mr_to_ct": "Translator from MR to pseudo-CT"}
_SCOPE = {
    "lesions": "Synthetic images of the lesion classes below, at the size and pixel size below, to augment training.",
    "mr_to_ct": "Pseudo-CT from MR of the anatomy, sequences and spacing it was trained on.",
}
_LIMITS = {
    "lesions": (
        "It knows the subjects it was trained on; lesions, scanners and populations outside of them are not covered.",
        "Classes are those of its training data; it cannot make others, nor tell a diagnosis.",
        "A search for copies of training images found what the verdicts say; it does not prove that the weights hold "
        "nothing of a patient.",
        "Images that help one classifier may not help another: judge them on your own held-out subjects.",
    ),
    "mr_to_ct": (
        "Values of pseudo-CT are estimates; metal, implants, air cavities and anatomy it has not seen come out wrong.",
        "Figures hold for the held-out subjects of its data set, and not for other scanners, sequences or fields.",
        "Dose calculation and treatment planning on its output are outside its scope.",
        "The program is the bare network: N4, intensity maps, resampling and blending of windows are done by scanloom.",
    ),
}


@dataclass(frozen=True)
class Training:
    """What the card tells of the training.

    Attributes:
        model_card: content of the model folder's ``card.json``.
        network: content of its ``settings.json``.
        data: facts of the prepared set that name no subject.
        settings: the training's settings.
    """

    model_card: Mapping[str, Any]
    network: Mapping[str, Any]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]


_DATA_FACTS = (
    "classes", "counts", "subjects", "modality", "size_px", "pixel_mm", "unit", "spacing_mm", "ct_map", "mr_volumes",
    "ct_volumes", "pairs",
)  # fmt: skip
"""Facts of a prepared set that a card repeats; none of them leads to a subject."""


def data_summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a card tells of a prepared set."""
    return {name: facts[name] for name in _DATA_FACTS if name in facts}


def model_card(
    track: str, training: Training, results: Results, release: Release | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The card's content as JSON values.

    Args:
        track: lesions or mr_to_ct.
        training: what it was trained on and how.
        results: of the evaluation.
        release: the gate's decision on the cohort; None for a track without a gate.
        about: license, format, largest difference, hash of the model, versions.
    """
    card: dict[str, Any] = {
        "title": TITLES[track],
        "track": track,
        "intended_use": INTENDED_USE,
        "scope": _SCOPE[track],
        "limits": list(_LIMITS[track]),
        "training_data": dict(training.data),
        "training": {"images_shown": training.model_card.get("images_shown"), "settings": dict(training.settings)},
        "network": dict(training.network),
        "metrics": [headline.model_dump(mode="json") for headline in results.headlines],
        "verdicts": [verdict.model_dump(mode="json") for verdict in results.verdicts],
        "warnings": list(results.warnings),
        **about,
    }
    if release is not None:
        card["gate"] = {"decision": release.reason, "override": release.override, **release.gate}
    return card


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    gate = card.get("gate")
    lines = [f"# {card['title']}", "", f"**{card['intended_use']}**", ""]
    if gate is not None and gate["override"]:
        lines += [f"**{_plain(gate['decision'])}**", "", f"Reason given: {_plain(gate['override'])}", ""]
    lines += ["## Scope", "", card["scope"], "", "## Limits", "", *(f"- {limit}" for limit in card["limits"]), ""]
    lines += ["## Training data", "", *_listed(card["training_data"]), ""]
    lines += ["## Network", "", *_listed(card["network"]), ""]
    lines += ["## Training", "", *_listed(card["training"]["settings"]), ""]
    lines += ["## Metrics", "", "| figure | value | beside |", "|---|---:|---|", *map(_figure, card["metrics"]), ""]
    lines += [*(f"- {_plain(verdict['sentence'])}" for verdict in card["verdicts"]), ""]
    lines += [*(f"- Warning: {_plain(text)}" for text in card["warnings"]), ""] if card["warnings"] else []
    lines += ["## Release gate", "", _plain(gate["decision"]), ""] if gate is not None else []
    lines += [
        "## Files",
        "",
        f"License: {card['license']}.",
        f"Format: {card['format']}. Largest difference from the network it was made from, in units of [-1, 1]: "
        f"{card['largest_difference']:.3g}.",
        f"SHA-256 of the model: `{card['model_sha256']}`.",
        "",
        *card["how_to_load"],
    ]
    return "\n".join(lines) + "\n"


def _listed(values: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {_plain(_words(value))}" for name, value in sorted(values.items())]


def _words(value: Any) -> str:
    """A JSON value as people write it."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_nested(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_nested, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not stated" if value is None else str(value)


def _nested(value: Any) -> str:
    return f"({_words(value)})" if isinstance(value, Mapping | list | tuple) else _words(value)


def _plain(text: str) -> str:
    """Text on one line that starts no markup; it never begins a line."""
    return "".join("\\" + sign if sign in r"\`*_[]<>|" else sign for sign in " ".join(text.split()))


def _figure(headline: Mapping[str, Any]) -> str:
    value = "not applicable" if headline["value"] is None else f"{headline['value']:.4g}"
    beside = headline["reference_text"]
    if headline["reference"] is not None:
        beside = f"{headline['reference']:.4g} ({beside})"
    return f"| {_plain(headline['text'])} | {value} | {_plain(beside)} |"
