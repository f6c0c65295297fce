"""The networks of a MR → CT training: who must be there, and what fits together."""

from dataclasses import dataclass

from models.image_pool import ImagePool
from models.mr_to_ct.discriminator import MultiScaleDiscriminator, PatchDiscriminator
from models.mr_to_ct.generator import Translator
from models.mr_to_ct.registration import DeformationNetwork
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.mr_to_ct.volumetric import VolumePatchDiscriminator
from models.rules import broken_rule

Discriminator = PatchDiscriminator | MultiScaleDiscriminator | VolumePatchDiscriminator


@dataclass(frozen=True)
class MRToCTNetworks:
    """The players, on one device. Those that the settings leave out may be None, and are not looked at.

    Attributes:
        mr_to_ct: s k + c channels in, k out.
        ct_to_mr: s k + c channels in, s k out.
        ct_discriminator: k channels in.
        mr_discriminator: s k channels in.
        registration: of k slices, for supervision "registered".
    """

    mr_to_ct: Translator
    ct_to_mr: Translator | None = None
    ct_discriminator: Discriminator | None = None
    mr_discriminator: Discriminator | None = None
    registration: DeformationNetwork | None = None


@dataclass(frozen=True)
class Side:
    """One direction of translation: everything that ends in the target modality."""

    target: str
    translator: Translator
    discriminator: Discriminator | None
    pool: ImagePool


def sides_of(networks: MRToCTNetworks, settings: MRToCTStepSettings) -> tuple[Side, ...]:
    """The directions in use, MR → CT first.

    Raises:
        ValueError: a network is missing or has other channels than mr_to_ct.
    """
    found = {"ct": (networks.mr_to_ct, networks.ct_discriminator)}
    if settings.trains_ct_to_mr:
        if networks.ct_to_mr is None:
            raise missing("ct_to_mr")
        found["mr"] = (networks.ct_to_mr, networks.mr_discriminator)
    sides = []
    for target, (translator, discriminator) in found.items():
        if settings.trains_discriminators and discriminator is None:
            raise missing(f"{target}_discriminator")
        judge = discriminator if settings.trains_discriminators else None
        _require_channels(networks.mr_to_ct, translator, judge, settings.sequences if target == "mr" else 1)
        sides.append(Side(target, translator, judge, ImagePool(settings.pool_size)))
    return tuple(sides)


def missing(name: str) -> ValueError:
    """Names a network that the settings train and nobody gave."""
    return broken_rule(
        "every network that the settings train must be given",
        found=f"{name} = None",
        allowed="a network",
        change=f"build {name}, or set the weights that need it to zero",
    )


def _require_channels(first: Translator, translator: Translator, judge: Discriminator | None, times: int) -> None:
    channels = (first.in_channels, first.out_channels * times)
    judged = channels[1] if judge is None else judge.in_channels
    if (translator.in_channels, translator.out_channels) != channels or judged != channels[1]:
        raise broken_rule(
            "all networks must work on stacks of the same slices",
            found=f"translators {(first.in_channels, first.out_channels)} and "
            f"{(translator.in_channels, translator.out_channels)}, judged {judged}",
            allowed="the same channels into both translators; `out` once for CT and once for each sequence of MR, and "
            "as many for the discriminators",
            change="build all networks for one stack size",
        )
