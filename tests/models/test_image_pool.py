"""The history of fakes: what it returns, how often, and that it resumes exactly."""

import pytest
import torch
from torch import Tensor

from models.image_pool import ImagePool


def numbered(first: int, count: int) -> Tensor:
    """Images that carry their own number."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2)


def test_a_filling_pool_returns_what_it_is_given() -> None:
    pool, rng = ImagePool(6), torch.Generator().manual_seed(0)
    for first in (0, 3):
        assert torch.equal(pool.query(numbered(first, 3), rng), numbered(first, 3))
    assert torch.equal(pool.state_dict()["images"], numbered(0, 6))


def test_a_full_pool_swaps_half_of_the_fakes_for_older_ones_and_loses_none() -> None:
    size, pool, rng = 50, ImagePool(50), torch.Generator().manual_seed(0)
    pool.query(numbered(0, size), rng)
    kept, seen = 0, []
    for first in range(size, size + 4000, 8):
        fakes = numbered(first, 8)
        returned = pool.query(fakes, rng)
        kept += int((returned == fakes).all(dim=(1, 2, 3)).sum())
        seen += returned[:, 0, 0, 0].tolist()
    # Binomial(4000, ½) has a standard deviation of 31.6.
    assert abs(kept - 2000) < 4 * 31.6
    everything = sorted(seen + pool.state_dict()["images"][:, 0, 0, 0].tolist())
    assert everything == list(range(size + 4000))


def test_every_place_of_the_pool_is_replaced_equally_often() -> None:
    pool, rng = ImagePool(10), torch.Generator().manual_seed(1)
    pool.query(numbered(0, 10), rng)
    counts = torch.zeros(10)
    for turn in range(2000):
        before = pool.state_dict()["images"]
        pool.query(numbered(100 + turn, 1), rng)
        counts += (pool.state_dict()["images"] != before).any(dim=(1, 2, 3))
    # Each place: Binomial(2000, 1/20), mean 100, standard deviation 9.75.
    assert (counts - 100).abs().max() < 4 * 9.75


def test_a_restored_pool_goes_on_bit_for_bit() -> None:
    pool, rng = ImagePool(4), torch.Generator().manual_seed(2)
    pool.query(numbered(0, 6), rng)
    copy, copy_rng = ImagePool(4), torch.Generator()
    copy.load_state_dict(pool.state_dict())
    copy_rng.set_state(rng.get_state())
    for first in (10, 20, 30):
        assert torch.equal(pool.query(numbered(first, 4), rng), copy.query(numbered(first, 4), copy_rng))
    assert torch.equal(pool.state_dict()["images"], copy.state_dict()["images"])


def test_an_empty_pool_is_stored_and_restored() -> None:
    pool = ImagePool(3)
    pool.load_state_dict(ImagePool(3).state_dict())
    assert len(pool) == 0


def test_stored_images_are_copies_and_the_graph_is_cut() -> None:
    pool, rng = ImagePool(3), torch.Generator().manual_seed(0)
    fakes = numbered(1, 2).clone().requires_grad_()
    returned = pool.query(fakes, rng)
    assert not returned.requires_grad
    with torch.no_grad():
        fakes.zero_()
    assert torch.equal(pool.state_dict()["images"], numbered(1, 2))


def test_size_zero_passes_everything_on() -> None:
    pool, rng = ImagePool(0), torch.Generator().manual_seed(0)
    assert torch.equal(pool.query(numbered(5, 3), rng), numbered(5, 3))
    assert len(pool) == 0


def test_refusals_name_the_numbers() -> None:
    with pytest.raises(ValueError, match="-1"):
        ImagePool(-1)
    with pytest.raises(ValueError, match=r"5 images[\s\S]*at most 3"):
        ImagePool(3).load_state_dict({"images": numbered(0, 5)})
