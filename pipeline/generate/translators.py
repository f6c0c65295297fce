"""The networks that translate, what they were trained on, and the way back from CT to MR."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.domain_card import DomainCard, read_domain_card
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.inference import Member
from pipeline.trained_models import (
    CARD_FILE,
    load_back_translator,
    load_translator,
    model_hash,
)
from pipeline.translated_case import Networks


@dataclass(frozen=True)
class Translators:
    """An ensemble, or a single network.

    Attributes:
        members: networks from MR to CT.
        back: the first one's partner from CT to MR; None where it was trained without.
        cards: domain cards, one a member; None for a model that was saved without.
        digests: hashes of the models.
    """

    members: tuple[Member, ...]
    back: Member | None
    cards: tuple[DomainCard | None, ...]
    digests: tuple[str, ...]

    @property
    def networks(self) -> Networks:
        """The networks alone."""
        return Networks(self.members, self.back)

    def require_sequences(self, names: Sequence[str]) -> None:
        """Refuse a prepared set whose MR inputs are other sequences, or the same in another order.

        Raises:
            InputError: with both lists.
        """
        for member in self.members:
            known = member.settings.sequences
            if [name.casefold() for name in known] != [name.casefold() for name in names]:
                raise InputError(
                    "A model translates the MR sequences that it was trained on, in their order.",
                    found=_sequence_words(names),
                    allowed=_sequence_words(known),
                    change=f"Prepare with prepare.mr_to_ct.sequences=[{', '.join(known)}], or take another model.",
                )

    @property
    def version(self) -> str:
        """Short hashes of the models, or of the first and a count where there are many."""
        short = [digest[:12] for digest in self.digests]
        return "+".join(short) if len(short) <= 3 else f"{short[0]}+{len(short) - 1}"


def load_translators(folders: Sequence[Path], device: torch.device) -> Translators:
    """Load model folders, one or more.

    Raises:
        InputError: the same model twice, which would pass for agreement.
        TrainingError: weights unreadable or of another architecture.
    """
    digests = tuple(model_hash(folder) for folder in folders)
    if len(set(digests)) != len(digests):
        raise InputError(
            "The networks of an ensemble must differ: their spread is shown as uncertainty.",
            found=f"{len(digests)} models, {len(set(digests))} of them different",
            allowed="trainings with different seeds, data or settings",
            change="Name each model once; leave the run's own seed out of generate.mr_to_ct.ensemble.",
        )
    members = tuple(Member.of(*load_translator(folder, device)) for folder in folders)
    back = load_back_translator(folders[0], device)
    return Translators(
        members,
        None if back is None else Member.of(*back),
        tuple(read_domain_card(read_json(folder / CARD_FILE)) for folder in folders),
        digests,
    )


def require_planes(translators: Translators, planes: Sequence[str]) -> None:
    """Refuse planes that a network of three dimensions was not made for.

    Raises:
        InputError: another plane than the axial one.
    """
    volumetric = sum(member.settings.dimensions == 3 for member in translators.members)
    if volumetric and tuple(planes) != ("axial",):
        raise InputError(
            "A network of three dimensions sees all planes at once, and translates stacks of axial slices.",
            found=f"planes {', '.join(planes)}, and {volumetric} such networks",
            allowed="axial",
            change="Set generate.mr_to_ct.planes=[axial], or take a model of two dimensions.",
        )


def _sequence_words(names: Sequence[str]) -> str:
    return f"{', '.join(names)} together" if names else "one MR at a time"
