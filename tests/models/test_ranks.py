"""Two and three ranks learn what one process learns from the whole batch: gradients, terms, weights, histories.

Ranks are threads here, see `in_ranks`.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.blocks import MinibatchStandardDeviation
from models.labels import LabelSettings
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings
from models.lesion_gan.virtual_batch import VirtualBatchGenerator
from models.losses import NonFiniteLossError
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import UNetGenerator
from models.mr_to_ct.players import MRToCTNetworks
from models.mr_to_ct.registration import DeformationNetwork
from models.mr_to_ct.step import MRToCTBatch, MRToCTStep
from models.mr_to_ct.step_settings import MRToCTStepSettings
from models.mr_to_ct.volumetric import VolumePatchDiscriminator, VolumeUNetGenerator
from models.ranks import ALONE, RankLostError, Ranks
from models.shared_statistics import SharedBatchNorm2d, SharedMinibatchDeviation, share_statistics

InRanks = Callable[[int, Callable[[Ranks], Any]], list[Any]]
_BUILDING = threading.Lock()
ROUNDING = 2e-5
"""Relative distance of two float32 gradients that sum in another order."""


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm().clamp_min(1e-12))


def gradients(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def parameters(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def flat(network: nn.Module) -> Tensor:
    """All weights and buffers: single ones without gradient but rounding, e.g. biases before norms, wander in Adam."""
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def test_sums_and_their_gradients_cross_ranks_twice(in_ranks: InRanks) -> None:
    def work(ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.tensor(float(ranks.index + 1), requires_grad=True)
        loss = ranks.summed(x) ** 3 * (ranks.index + 1)  # rank losses s³ and 2 s³, s = x₀ + x₁ = 3
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        (bend,) = torch.autograd.grad(slope, x)
        return loss.detach(), slope.detach(), bend

    for index, (loss, slope, bend) in enumerate(in_ranks(2, work)):
        assert float(loss) == 27 * (index + 1)
        assert float(slope) == 3 * 27  # d(s³ + 2 s³)/dx
        assert float(bend) == 2 * 3 * 18  # each rank's slope is 9 s², and both depend on x


def test_a_share_is_this_ranks_rows_of_every_group(in_ranks: InRanks) -> None:
    rows = torch.arange(12)
    parts = in_ranks(3, lambda ranks: (ranks.part(rows), ranks.part(rows, groups=2), ranks.gathered(ranks.part(rows))))
    assert [part.tolist() for part, _, _ in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [grouped.tolist() for _, grouped, _ in parts] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert all(torch.equal(everyone, rows) for _, _, everyone in parts)


def test_alone_everything_is_handed_back() -> None:
    rows = torch.arange(3.0)
    assert ALONE.part(rows) is rows
    assert ALONE.summed(rows) is rows
    assert ALONE.mean(rows) is rows
    assert ALONE.gathered(rows) is rows
    network = nn.Sequential(nn.BatchNorm2d(2), MinibatchStandardDeviation())
    share_statistics(network, ALONE)
    assert [type(layer) for layer in network] == [nn.BatchNorm2d, MinibatchStandardDeviation]


def test_a_batch_that_cannot_be_shared_evenly_is_refused(in_ranks: InRanks) -> None:
    with pytest.raises(ValueError, match="7 images for 2 processes"):
        in_ranks(2, lambda ranks: ranks.part(torch.zeros(7)))


def test_a_norm_that_cannot_be_shared_is_refused(in_ranks: InRanks) -> None:
    with pytest.raises(ValueError, match="BatchNorm3d in Sequential"):
        in_ranks(2, lambda ranks: share_statistics(nn.Sequential(nn.BatchNorm3d(2)), ranks))


def test_a_lost_rank_is_named_as_such() -> None:
    class Broken:
        def size(self) -> int:
            return 2

        def rank(self) -> int:
            return 0

        def allreduce(self, tensors: list[Tensor]) -> None:
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(RankLostError):
        Ranks(Broken()).total_of(torch.zeros(1))


def test_shared_statistics_are_those_of_torch_on_the_whole_batch(in_ranks: InRanks) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 4, 4, generator=rng) * 2 + 1
    plain = nn.BatchNorm2d(3)
    spread = MinibatchStandardDeviation()
    expected, expected_spread = plain(images), spread(images, 2)

    def work(ranks: Ranks) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        network = nn.Sequential(nn.BatchNorm2d(3), MinibatchStandardDeviation())
        share_statistics(network, ranks)
        norm, deviation = network
        assert isinstance(norm, SharedBatchNorm2d)
        assert isinstance(deviation, SharedMinibatchDeviation)
        made = norm(ranks.part(images))
        return made, deviation(ranks.part(images, groups=2), 2), dict(network[0].state_dict())

    parts = in_ranks(3, work)
    assert torch.allclose(torch.cat([made for made, _, _ in parts]), expected, atol=1e-5)
    for index, (_, spreads, state) in enumerate(parts):
        assert state.keys() == plain.state_dict().keys()
        assert all(torch.allclose(value, state[name]) for name, value in plain.state_dict().items())
        assert torch.allclose(spreads[:, 3], part_of_both(expected_spread[:, 3], index, 3), atol=1e-6)


def part_of_both(rows: Tensor, index: int, count: int) -> Tensor:
    return torch.cat([group.chunk(count)[index] for group in rows.chunk(2)])


LESION_CASES = {
    "batch norm, minibatch spread, spectral norm": LesionStepSettings(),
    "R1 and R2 of a relative game": LesionStepSettings(objective="relativistic", r1_gamma=1.0, r2_gamma=1.0),
    "gradient penalty": LesionStepSettings(objective="wasserstein", gradient_penalty=10.0, critic_steps=1),
    "soft labels, noise, clipped gradients": LesionStepSettings(
        objective="non_saturating",
        labels=LabelSettings(real=0.9, softness=0.1, flip_rate=0.2),
        instance_noise=0.2,
        gradient_clip=0.05,
    ),
    "adaptive augmentation": LesionStepSettings(adaptive_augment=0.1),
}


def lesion_step(settings: LesionStepSettings, ranks: Ranks, family: str) -> LesionGANStep:
    with _BUILDING:  # spectral norms start from torch's global generator, which threads share
        return lesion_networks(settings, ranks, family)


def lesion_networks(settings: LesionStepSettings, ranks: Ranks, family: str) -> LesionGANStep:
    rng = torch.Generator().manual_seed(0)
    sizes = {"num_classes": 2, "width": 4}
    if family == "classic":
        generator = ClassicGenerator(32, rng, latent_size=8, **sizes)
        return LesionGANStep(generator, ClassicDiscriminator(32, rng, **sizes), settings, rng, ranks)
    if family == "virtual":
        reference = VirtualBatchGenerator(32, rng, reference_size=3, latent_size=8, **sizes)
        return LesionGANStep(reference, DCGANDiscriminator(32, rng, **sizes), settings, rng, ranks)
    generator = DCGANGenerator(32, rng, latent_size=8, **sizes)
    return LesionGANStep(generator, DCGANDiscriminator(32, rng, **sizes), settings, rng, ranks)


def lesion_course(
    settings: LesionStepSettings, ranks: Ranks, family: str = "dcgan", steps: int = 5
) -> dict[str, object]:
    step = lesion_step(settings, ranks, family)
    rng = torch.Generator().manual_seed(5)
    for number in range(steps):
        images, classes = torch.rand(6, 1, 32, 32, generator=rng) * 2 - 1, torch.arange(6) % 2
        terms = step.step(images, classes)
        if number == 0:
            first = {"d": gradients(step.discriminator), "g": gradients(step.generator), "terms": terms}
    return first | {"networks": step.networks(), "last": terms, "extra": step.extra_state()}


def same_learning(alone: dict[str, object], shared: list[dict[str, object]], later: float) -> None:
    for rank in shared:
        for player in ("d", "g"):
            assert distance(rank[player], alone[player]) < ROUNDING, player
        assert rank["terms"].keys() == alone["terms"].keys()
        for name, term in alone["terms"].items():
            assert torch.allclose(rank["terms"][name], term, rtol=1e-3, atol=5e-4), name  # D moved before G
        for name, network in alone["networks"].items():
            mine, first = (flat(side["networks"][name]) for side in (rank, shared[0]))
            assert torch.equal(mine, first), "ranks differ"
            assert distance(mine, flat(network)) < later, name
        for key, value in alone["extra"].items():
            assert distance(rank["extra"][key].float(), value.float()) < later, key


@pytest.mark.parametrize("case", LESION_CASES)
def test_ranks_learn_lesions_as_one_process_does(case: str, in_ranks: InRanks) -> None:
    settings = LESION_CASES[case]
    alone = lesion_course(settings, ALONE)
    same_learning(alone, in_ranks(2, lambda ranks: lesion_course(settings, ranks)), later=0.02)


@pytest.mark.parametrize("family", ["classic", "virtual"])
def test_every_family_of_networks_can_be_shared(family: str, in_ranks: InRanks) -> None:
    alone = lesion_course(LesionStepSettings(), ALONE, family)
    same_learning(alone, in_ranks(3, lambda ranks: lesion_course(LesionStepSettings(), ranks, family)), later=0.02)


def test_statistics_of_a_share_alone_would_be_seen(monkeypatch: pytest.MonkeyPatch, in_ranks: InRanks) -> None:
    alone = lesion_course(LesionStepSettings(), ALONE, steps=1)
    monkeypatch.setattr("models.lesion_gan.step.share_statistics", lambda network, ranks: None)
    (first, _) = in_ranks(2, lambda ranks: lesion_course(LesionStepSettings(), ranks, steps=1))
    assert distance(first["d"], alone["d"]) > 1000 * ROUNDING
    assert distance(first["g"], alone["g"]) > 1000 * ROUNDING


def test_a_loss_that_one_rank_cannot_compute_stops_all(in_ranks: InRanks) -> None:
    images = torch.zeros(4, 1, 32, 32)
    images[3] = torch.nan  # in the share of the second rank

    def work(ranks: Ranks) -> list[str]:
        step = lesion_step(LesionStepSettings(), ranks, "dcgan")
        before = parameters(step.discriminator)
        with pytest.raises(NonFiniteLossError) as failure:
            step.step(images, torch.arange(4) % 2)
        assert torch.equal(parameters(step.discriminator), before)
        return [failure.value.term]

    assert in_ranks(2, work) == [["d_loss"], ["d_loss"]]


TRANSLATION_CASES = {
    "unpaired": MRToCTStepSettings("unpaired", pool_size=5),
    "some pairs, every anchor": MRToCTStepSettings(
        "mixed",
        lambda_weak=5,
        lambda_bone=3,
        lambda_bone_entropy=2,
        lambda_gradient=2,
        lambda_mind=4,
        lambda_body=1,
        pool_size=5,
    ),
    "registered": MRToCTStepSettings(
        "registered", lambda_bone=2, lambda_bone_entropy=1, gradient_clip=0.5, lambda_cycle=0
    ),
    "relative game with penalties": MRToCTStepSettings("unpaired", objective="relativistic", penalty=1.0, pool_size=5),
}


def plane_networks(rng: torch.Generator) -> MRToCTNetworks:
    translators = [UNetGenerator(1, 1, rng, width=4, depth=2) for _ in range(2)]
    judges = [PatchDiscriminator(1, rng, width=4) for _ in range(2)]
    return MRToCTNetworks(*translators, *judges, DeformationNetwork(1, rng))


def volume_networks(rng: torch.Generator) -> MRToCTNetworks:
    translators = [VolumeUNetGenerator(4, 0, rng, width=4, depth=2) for _ in range(2)]
    return MRToCTNetworks(*translators, *(VolumePatchDiscriminator(4, rng, width=4) for _ in range(2)))


def translation_course(
    settings: MRToCTStepSettings, ranks: Ranks, steps: int = 4, slices: int = 1
) -> dict[str, object]:
    rng = torch.Generator().manual_seed(0)
    step = MRToCTStep(plane_networks(rng) if slices == 1 else volume_networks(rng), settings, rng, ranks)
    for number in range(steps):
        terms = step.step(uneven_batch(number, settings.supervision == "registered", slices))
        if number == 0:
            learned = step.networks()
            players = {
                "g": [n for n in learned if "disc" not in n and "ema" not in n],
                "d": [n for n in learned if "disc" in n],
            }
            first = {key: torch.cat([gradients(learned[n]) for n in names]) for key, names in players.items()}
            first["terms"] = terms
    return first | {"networks": step.networks(), "last": terms, "extra": step.extra_state()}


def uneven_batch(seed: int, pairs: bool, slices: int) -> MRToCTBatch:
    """Bodies of very different size, and fewer pairs in one half than in the other."""
    rng = torch.Generator().manual_seed(seed)
    mr, ct, weak = (torch.rand(4, slices, 32, 32, generator=rng) * 2 - 1 for _ in range(3))
    mask = torch.zeros(4, slices, 32, 32)
    for row, side in enumerate((2, 6, 12, 16)):
        mask[row, :, 16 - side : 16 + side, 16 - side : 16 + side] = 1
    paired = torch.tensor([True, pairs, True, True])
    return MRToCTBatch(mr, ct, mask, mask.roll(2, dims=2), paired, weak)


@pytest.mark.parametrize("case", TRANSLATION_CASES)
def test_ranks_learn_to_translate_as_one_process_does(case: str, in_ranks: InRanks) -> None:
    settings = TRANSLATION_CASES[case]
    alone = translation_course(settings, ALONE)
    same_learning(alone, in_ranks(2, lambda ranks: translation_course(settings, ranks)), later=0.02)


def test_ranks_learn_in_three_dimensions_as_one_process_does(in_ranks: InRanks) -> None:
    settings = TRANSLATION_CASES["some pairs, every anchor"]
    alone = translation_course(settings, ALONE, 2, slices=4)
    same_learning(alone, in_ranks(2, lambda ranks: translation_course(settings, ranks, 2, slices=4)), later=0.02)
