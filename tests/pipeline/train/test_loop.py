import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from models.losses import NonFiniteLossError
from pipeline.checkpoints import generations
from pipeline.errors import TrainingError
from pipeline.records import silent
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining

CPU = torch.device("cpu")
LESIONS = TrainLesionsSettings(
    images=48, batch_size=4, width=4, latent_size=8, log_every_images=8, checkpoint_every_images=8,
    grid_every_images=16, mirror=True, r1_gamma=1.0, alarms={"probe_images": 8},
)  # fmt: skip
MR_TO_CT = TrainMRToCTSettings(
    images=16, batch_size=2, width=4, discriminator_width=4, patch_px=32, slices=3, supervision="mixed", pool_size=3,
    log_every_images=4, checkpoint_every_images=4, grid_every_images=8, alarms={"probe_images": 8},
)  # fmt: skip


class Killed(BaseException):
    """Stands for a kill between two steps."""


def kill_at(limit):
    def progress(what, done, total):
        if done >= limit:
            raise Killed

    return progress


def lesions(images):
    return LesionTraining(images, LESIONS, 5, CPU)


def mr_to_ct(volumes):
    return MRToCTTraining(volumes, MR_TO_CT, 5, CPU)


def all_weights(folder):
    return {
        f"{path.name}/{name}": tensor
        for path in sorted((folder / "model").glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_training(one, other):
    first, second = all_weights(one), all_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert pl.read_parquet(one / "log.parquet").equals(pl.read_parquet(other / "log.parquet"))
    grids = [{path.name: path.read_bytes() for path in (folder / "grids").iterdir()} for folder in (one, other)]
    assert grids[0] == grids[1]


@pytest.mark.parametrize("kill", [4, 12, 24, 44, 48])
def test_lesion_training_resumes_bit_for_bit(images, tmp_path, kill):
    train(lesions(images), LESIONS, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(lesions(images), LESIONS, tmp_path / "parts", "w", kill_at(kill))
    facts = train(lesions(images), LESIONS, tmp_path / "parts", "w", silent)
    assert facts["resumed_at_images"] == (kill - 4) // 8 * 8  # the kill comes before the checkpoint of its own step
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("kill", [2, 6, 14])
def test_translation_training_resumes_bit_for_bit(volumes, tmp_path, kill):
    train(mr_to_ct(volumes), MR_TO_CT, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(mr_to_ct(volumes), MR_TO_CT, tmp_path / "parts", "w", kill_at(kill))
    train(mr_to_ct(volumes), MR_TO_CT, tmp_path / "parts", "w", silent)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_two_kills_are_no_worse_than_one(images, tmp_path):
    train(lesions(images), LESIONS, tmp_path / "whole", "w", silent)
    for kill in (20, 36):
        with pytest.raises(Killed):
            train(lesions(images), LESIONS, tmp_path / "parts", "w", kill_at(kill))
    train(lesions(images), LESIONS, tmp_path / "parts", "w", silent)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_a_damaged_newest_checkpoint_costs_time_only(images, tmp_path):
    train(lesions(images), LESIONS, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(lesions(images), LESIONS, tmp_path / "parts", "w", kill_at(28))
    newest = generations(tmp_path / "parts" / "checkpoints")[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    facts = train(lesions(images), LESIONS, tmp_path / "parts", "w", silent)
    assert facts["resumed_at_images"] == 16
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_another_seed_gives_another_model(images, tmp_path):
    train(lesions(images), LESIONS, tmp_path / "a", "w", silent)
    train(LesionTraining(images, LESIONS, 6, CPU), LESIONS, tmp_path / "b", "w", silent)
    first, second = all_weights(tmp_path / "a"), all_weights(tmp_path / "b")
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_progress_counts_images_and_the_log_has_every_interval(images, tmp_path):
    seen = []
    train(lesions(images), LESIONS, tmp_path / "run", "lesion images", lambda *call: seen.append(call))
    assert seen == [("lesion images", done, 48) for done in range(4, 52, 4)]
    log = pl.read_parquet(tmp_path / "run" / "log.parquet")
    assert log["images"].to_list() == list(range(8, 56, 8))
    assert {"d_loss", "g_loss", "p_real_over_fake"} <= set(log.columns)
    assert sorted(path.stem for path in (tmp_path / "run" / "grids").iterdir()) == [
        "0000000016",
        "0000000032",
        "0000000048",
    ]


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(images, tmp_path):
    trainee = lesions(images)
    whole, calls = trainee.train_batch, []

    def poisoned():
        calls.append(1)
        if len(calls) == 6:
            raise NonFiniteLossError("d_loss", float("nan"))
        return whole()

    trainee.train_batch = poisoned
    with pytest.raises(TrainingError, match="d_loss = nan after 20 images"):
        train(trainee, LESIONS, tmp_path / "run", "w", silent)
    assert [path.name for path in generations(tmp_path / "run" / "checkpoints")] == ["0000000008", "0000000016"]
    assert not (tmp_path / "run" / "model").exists()
