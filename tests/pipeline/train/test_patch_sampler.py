import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.intensity import CT_MAP
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.patch_sampler import MARGIN, PatchSampler, _first_pixel

CPU = torch.device("cpu")


def sampler(volumes, seed=1, **changes):
    settings = TrainMRToCTSettings(**({"patch_px": 32, "mirror": False, "slices": 1} | changes))
    return PatchSampler(volumes, settings, torch.Generator().manual_seed(seed), CPU)


def test_equal_seeds_draw_equal_batches(volumes):
    first, second = sampler(volumes).draw(4), sampler(volumes).draw(4)
    assert torch.equal(first.mr, second.mr)
    assert torch.equal(first.ct, second.ct)
    assert not torch.equal(first.mr, sampler(volumes, seed=2).draw(4).mr)


def test_pairs_are_registered_voxel_by_voxel(volumes):
    batch = sampler(volumes, supervision="paired", mirror=True, coordinates=False).draw(16)
    assert bool(batch.paired.all())
    inside = batch.mr_mask > 0
    soft, bone = CT_MAP.encode(np.array([40.0, 340.0]))
    expected = torch.where(batch.mr > 0, torch.tensor(soft), torch.tensor(bone))
    torch.testing.assert_close(batch.ct[inside], expected[inside])


def test_unpaired_rows_are_never_called_pairs(volumes):
    assert not sampler(volumes, supervision="unpaired").draw(8).paired.any()


def test_mixed_draws_pairs_in_every_other_row(volumes):
    assert sampler(volumes, supervision="mixed").draw(6).paired.tolist() == [True, False] * 3


def test_outside_the_body_ct_is_air(volumes):
    batch = sampler(volumes, coordinates=False).draw(8)
    assert bool((batch.ct[batch.ct_mask == 0] == -1).all())


def test_mirrored_coordinates_still_say_where_in_the_body(volumes):
    batch = sampler(volumes, supervision="paired", mirror=True).draw(32)
    # Bone (bright CT) sits at positive column coordinates; in a mirrored patch the body is mirrored with its frame.
    column, bone = batch.mr[:, -1], (batch.ct[:, 0] > 0.35) & (batch.ct_mask[:, 0] > 0)
    signs = [float(column[n][bone[n]].mean().sign()) for n in range(32) if bone[n].any()]
    assert set(signs) == {1.0, -1.0}
    assert bool((column[:, :, 1:] >= column[:, :, :-1]).all())


def test_without_pairs_paired_supervision_is_refused(volumes):
    for row in range(volumes.table.height):
        volumes.table[row, "pair_volume"] = -1
    with pytest.raises(InputError, match="pairs"):
        sampler(volumes, supervision="paired")


@pytest.mark.parametrize(("low", "end", "side"), [(0, 128, 128), (30, 90, 96), (40, 72, 128), (10, 20, 32)])
def test_a_patch_that_can_hold_the_body_does_but_for_the_margin(low, end, side):
    firsts = [_first_pixel(low, end, side, share) for share in np.linspace(0, 1, 400, endpoint=False)]
    assert min(firsts) == end - side - int(MARGIN * side)
    assert max(firsts) == low + int(MARGIN * side)


@pytest.mark.parametrize(("low", "end", "side"), [(0, 256, 96), (17, 190, 128), (5, 70, 64)])
def test_a_smaller_patch_shows_every_place_of_the_body_about_as_often(low, end, side):
    firsts = [_first_pixel(low, end, side, share) for share in np.linspace(0, 1, 40 * (end - low), endpoint=False)]
    middles, counts = np.unique(np.array(firsts) + side // 2, return_counts=True)
    assert set(middles.tolist()) == set(range(low, end))
    assert counts.max() - counts.min() <= 1
