"""Changed patches: pairs stay pairs, coordinates stay with the anatomy, looks change MR alone."""

import numpy as np
import pytest
import torch

from models.mr_to_ct.step import MRToCTBatch
from pipeline.train.patch_augmentation import UNTOUCHED, PatchAugmentation, _through_curves

SIDE = 48


def batch(count: int = 6, *, paired: bool = True) -> MRToCTBatch:
    """A disk that carries a ramp; CT is a function of MR, the coordinate channels are the pixel's place."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    body = ((rows / 0.7) ** 2 + (columns / 0.5) ** 2 < 1).float()
    mr = torch.where(body > 0, 0.5 * rows + 0.3 * columns, torch.tensor(-1.0))
    place = torch.stack([torch.zeros_like(rows), rows, columns])
    ct = torch.where(body > 0, mr * 0.5, torch.tensor(-1.0))

    def many(part: torch.Tensor) -> torch.Tensor:
        return part.expand(count, *part.shape).clone()

    return MRToCTBatch(
        many(torch.cat([mr[None], place])),
        many(torch.cat([ct[None], place])),
        many(body[None]),
        many(body[None]),
        torch.full((count,), paired),
        many(ct[None]),
    )


def changed(shape: float, look: float, seed: int = 1, **kinds: bool) -> tuple[MRToCTBatch, MRToCTBatch]:
    before = batch(**kinds)
    return before, PatchAugmentation(shape, look)(before, torch.Generator().manual_seed(seed))


def inside(part: MRToCTBatch) -> torch.Tensor:
    """Body without its rim, where interpolation mixes in air."""
    return -torch.nn.functional.max_pool2d(-part.mr_mask, 7, 1, 3) > 0


def test_strength_zero_changes_nothing() -> None:
    before, after = changed(0, 0)
    assert after is before


def test_bent_pairs_stay_pairs_and_weak_labels_go_with_the_mr() -> None:
    before, after = changed(1, 0)
    core = inside(after)
    assert core.sum() > 1000
    torch.testing.assert_close(after.ct[:, :1][core], after.mr[:, :1][core] * 0.5, atol=0.01, rtol=0)
    assert torch.equal(after.weak, after.ct[:, :1])
    assert not torch.equal(after.mr, before.mr)


def test_coordinates_stay_with_the_anatomy() -> None:
    _, after = changed(1, 0)
    core = inside(after)
    rows, columns = after.mr[:, 2:3][core], after.mr[:, 3:4][core]
    torch.testing.assert_close(after.mr[:, :1][core], 0.5 * rows + 0.3 * columns, atol=0.02, rtol=0)


def test_images_that_are_no_pair_are_bent_apart() -> None:
    _, after = changed(1, 0, paired=False)
    assert not torch.allclose(after.ct_mask, after.mr_mask)


def test_looks_change_the_mr_alone_and_keep_air_dark() -> None:
    before, after = changed(0, 1)
    assert torch.equal(after.ct, before.ct)
    assert torch.equal(after.mr[:, 1:], before.mr[:, 1:])
    assert after.mr[:, :1][before.mr_mask == 0].max() < -0.5
    assert (after.mr[:, :1] - before.mr[:, :1])[before.mr_mask > 0].abs().mean() > 0.05
    assert after.mr.abs().max() <= 1


def test_some_patches_are_shown_as_they_are() -> None:
    before = batch(400)
    after = PatchAugmentation(1.0, 0.0)(before, torch.Generator().manual_seed(2))
    same = (after.mr_mask == before.mr_mask).flatten(1).all(1).float().mean()
    assert float(same) == pytest.approx(UNTOUCHED, abs=0.06)


def test_equal_seeds_give_equal_changes_and_inputs_are_left_alone() -> None:
    before, after = changed(1, 1)
    kept = batch()
    assert torch.equal(before.mr, kept.mr)
    assert torch.equal(after.mr, changed(1, 1)[1].mr)
    assert not torch.equal(after.mr, changed(1, 1, seed=3)[1].mr)


def test_a_curve_is_linear_between_its_knots() -> None:
    signal = torch.linspace(0, 1, 11)[None, None, None]
    offsets = torch.tensor([[0.0, 0.2, -0.1]])
    expected = signal.numpy().ravel() + np.interp(signal.numpy().ravel(), [0, 0.5, 1], [0, 0.2, -0.1])
    np.testing.assert_allclose(_through_curves(signal, offsets).numpy().ravel(), expected.clip(0, 1), atol=1e-6)
