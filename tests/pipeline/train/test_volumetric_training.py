"""Training in three dimensions: patches of volumes, exact resume, refusals, and one training to its pseudo-CT."""

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.inference import Member, SourceVolume, WindowPlan, translate_volume
from pipeline.intensity import CT_MAP, from_int16, to_int16
from pipeline.prepared_set import VolumeSetWriter, read_volume_set
from pipeline.records import silent
from pipeline.settings import TrainMRToCTSettings
from pipeline.slice_stacks import middle_inside, neighbors
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.train.patch_sampler import PatchSampler
from pipeline.trained_models import load_translator

CPU = torch.device("cpu")
SMALL = {
    "dimensions": 3, "slices": 8, "patch_px": 32, "width": 4, "discriminator_width": 4, "batch_size": 2, "images": 8,
    "pool_size": 3, "log_every_images": 2, "checkpoint_every_images": 4, "grid_every_images": 4,
    "alarms": {"probe_images": 4},
}  # fmt: skip


def settings(**changes):
    return TrainMRToCTSettings.model_validate(SMALL | changes)


@pytest.mark.parametrize("depth", [8, 9, 30])
def test_stacks_hold_their_slice_and_stay_inside_the_volume(depth):
    for index in range(depth):
        stack = neighbors(middle_inside(index, 8, depth), 8, depth)
        assert index in stack
        assert np.array_equal(np.diff(stack), np.ones(7))


@pytest.mark.parametrize("depth", [1, 4, 7])
def test_volumes_that_are_too_thin_are_filled_up_evenly_with_their_ends(depth):
    for index in range(depth):
        stack = neighbors(middle_inside(index, 8, depth), 8, depth)
        assert set(stack) == set(range(depth))
        below, above = (np.count_nonzero(stack == end) for end in (0, depth - 1))
        assert abs(int(below) - int(above)) <= 1


def slanted_set(folder, subjects=3, depth=14):
    """Bodies whose CT is bone where the slice above is brighter than the one below, which one slice cannot tell."""
    rows, columns = np.mgrid[:40, :36]
    with VolumeSetWriter(folder) as writer:
        for number in range(subjects):
            rng = np.random.default_rng(number)
            body = np.hypot((rows - 20) / 17, (columns - 18) / 15) < 1
            mask = np.repeat(body[None], depth, 0).astype(np.uint8)
            coarse = rng.uniform(-0.8, 0.8, (depth, 5, 5))
            levels = np.repeat(np.repeat(coarse, 8, 1), 8, 2)[:, :, :36]
            rising = np.zeros_like(levels, bool)
            rising[1:-1] = levels[2:] > levels[:-2]
            mr = to_int16(np.where(mask, levels, -1))
            ct = np.where(mask, np.where(rising, 600, 0), -1000).astype(np.int16)
            shared = {"subject_id": f"s{number}", "split": "train" if number < subjects - 1 else "test",
                      "affine": None, "mr_low": 0.0, "mr_high": 1.0, "pair_volume": -1}  # fmt: skip
            first = writer.add(shared | {"modality": "MR", "series_id": f"m{number}", "own_grid": True}, mr, mask)
            second = writer.add(shared | {"modality": "CT", "series_id": f"c{number}", "own_grid": False}, ct, mask)
            writer.link(first, second)
        knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
        writer.close({"unit": "HU", "ct_map": knots, "spacing_mm": [2.0, 2.0, 4.0]})
    return read_volume_set(folder)


def test_a_patch_is_a_piece_of_one_volume_and_its_pair_the_same_piece(tmp_path):
    volumes = slanted_set(tmp_path)
    drawn = PatchSampler(
        volumes, settings(supervision="paired", mirror=False, coordinates=False), torch.Generator().manual_seed(0), CPU
    ).draw(6)
    assert drawn.mr.shape == drawn.ct.shape == (6, 8, 32, 32)
    levels = drawn.mr.numpy()
    rising = levels[:, 2:] > levels[:, :-2]
    inside = drawn.mr_mask[:, 1:-1].numpy() > 0
    bone = drawn.ct[:, 1:-1].numpy() > float(CT_MAP.encode(np.array(300.0)))
    assert np.array_equal(bone[inside], rising[inside])


def all_weights(folder):
    return {
        f"{path.name}/{name}": tensor
        for path in sorted((folder / "model").glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


class Killed(BaseException):
    """Stands for a kill between two steps."""


def test_a_training_resumes_bit_for_bit(volumes, tmp_path):
    mixed = settings(supervision="mixed", augment_shape=0.5, augment_look=0.5, lambda_gradient=1.0, lambda_mind=1.0)

    def kill(what, done, total):
        if done >= 6:
            raise Killed

    def trainee():
        return MRToCTTraining(volumes, mixed, 5, CPU)

    train(trainee(), mixed, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(trainee(), mixed, tmp_path / "parts", "w", kill)
    facts = train(trainee(), mixed, tmp_path / "parts", "w", silent)
    assert facts["resumed_at_images"] == 4
    first, second = all_weights(tmp_path / "whole"), all_weights(tmp_path / "parts")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [pl.read_parquet(tmp_path / name / "log.parquet") for name in ("whole", "parts")]
    assert logs[0].equals(logs[1])
    network, told = load_translator(tmp_path / "whole" / "model", CPU)
    assert (told.dimensions, told.slices) == (3, 8)
    assert any(isinstance(layer, torch.nn.Conv3d) for layer in network.modules())


@pytest.mark.parametrize("supervision", ["unpaired", "paired"])
def test_every_supervision_that_is_offered_trains(volumes, tmp_path, supervision):
    own = settings(supervision=supervision, images=2, alarms={"probe_images": 0}, lambda_bone=1.0, lambda_body=1.0)
    facts = train(MRToCTTraining(volumes, own, 1, CPU), own, tmp_path, "w", silent)
    assert facts["images"] == 2
    assert all(np.isfinite(value) for value in facts["final"].values() if isinstance(value, float))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dimensions": 2}, "in two dimensions 1, 3 or 5"),
        ({"slices": 3}, "8, 12, 16"),
        ({"slices": 10}, "8, 12, 16"),
        ({"generator": "light"}, "`unet` alone"),
        ({"supervision": "registered"}, "use paired or mixed"),
        ({"discriminator_scales": 2}, "in three dimensions 1"),
    ],
)
def test_what_three_dimensions_do_not_offer_is_refused_before_any_data_is_read(changes, words):
    with pytest.raises(ValueError, match=words):
        settings(**changes)


def mean_error(volumes, model, scratch):
    """MAE in HU of the test subject, slices at the ends left out."""
    network, told = load_translator(model, CPU)
    (row,) = volumes.volumes("MR", ["test"])
    mask = volumes.mask(row)
    source = SourceVolume(volumes.voxels(row), mask, mask > 0, from_int16)
    maps = translate_volume(source, [Member(network, told, 8)], WindowPlan(), CT_MAP.decode, CPU, scratch)
    truth = volumes.voxels(volumes.row(row["pair_volume"])).astype(float)
    inside = mask[1:-1] > 0
    return float(np.abs(maps.mean - truth)[1:-1][inside].mean())


@pytest.mark.slow
def test_three_dimensions_learn_what_single_slices_cannot_tell(tmp_path):
    """The same few steps in both: bone is where slices rise, which is half of the body."""
    volumes = slanted_set(tmp_path / "set", subjects=5)
    shared = {
        "supervision": "paired", "lambda_adversarial": 0.0, "lambda_cycle": 0.0, "lambda_paired": 100.0, "width": 8,
        "learning_rate": 3e-3, "betas": (0.9, 0.999), "images": 400, "batch_size": 2, "log_every_images": 100,
        "checkpoint_every_images": 400, "grid_every_images": 400, "alarms": {"probe_images": 0}, "ema_decay": 0.9,
        "coordinates": False,
    }  # fmt: skip
    errors = {}
    for name, own in (("3-D", {}), ("2-D", {"dimensions": 2, "slices": 1})):
        asked = settings(**shared, **own)
        train(MRToCTTraining(volumes, asked, 2, CPU), asked, tmp_path / name, "w", silent)
        scratch = tmp_path / f"{name}-maps"
        scratch.mkdir()
        errors[name] = mean_error(volumes, tmp_path / name / "model", scratch)
    assert errors["3-D"] < 0.6 * errors["2-D"]
