import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from models.blocks import ResizeConv
from models.losses import NonFiniteLossError
from pipeline.checkpoints import generations
from pipeline.errors import TrainingError
from pipeline.prepared_set import ImageSet, read_image_set, write_image_set
from pipeline.records import silent
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.trained_models import load_backbone, load_lesion_generator

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


def test_classes_are_drawn_evenly_however_rare(images, tmp_path):
    rare = images.table.with_columns(
        pl.when((pl.col("lesion_class") == "dark") & (pl.col("image").rank().over("lesion_class", "split") > 2))
        .then(pl.lit("test"))
        .otherwise(pl.col("split"))
        .alias("split")
    )
    trainee = LesionTraining(ImageSet(images.images, rare, images.facts), LESIONS, 5, CPU)
    drawn = []
    trainee.step.step = lambda batch, classes: drawn.append((batch, classes)) or {}
    for _ in range(200):
        trainee.train_batch()
    classes = torch.cat([classes for _, classes in drawn])
    assert (classes == 1).float().mean().item() == pytest.approx(0.5, abs=0.07)  # 2 of 8 images; four standard errors
    bright = torch.cat([batch for batch, _ in drawn]).mean(dim=(1, 2, 3)) > 0
    assert torch.equal(bright, classes == 0)


def test_one_class_alone_trains_networks_without_a_condition(images, tmp_path):
    keep = images.table["lesion_class"] == "bright"
    facts = images.facts | {"classes": ["bright"], "counts": {"train": {"bright": 6}}}
    table = images.table.filter(keep).with_columns(image=pl.int_range(pl.len()))
    write_image_set(tmp_path / "one", np.asarray(images.images[keep.to_numpy()]), table, facts)
    settings = LESIONS.model_copy(update={"images": 16})
    trainee = LesionTraining(read_image_set(tmp_path / "one"), settings, 5, CPU)
    train(trainee, settings, tmp_path / "run", "w", silent)
    assert trainee.step.discriminator.projection is None
    generator, kept = load_lesion_generator(tmp_path / "run" / "model", CPU)
    assert (kept.classes, generator.num_classes) == (("bright",), 0)
    assert load_backbone(tmp_path / "run" / "model").feature_count == 16


def test_two_sequences_train_a_generator_of_two_channels(images, tmp_path):
    both = np.concatenate([np.asarray(images.images), -np.asarray(images.images)], axis=1)
    write_image_set(tmp_path / "two", both, images.table, images.facts | {"channels": 2})
    settings = LESIONS.model_copy(update={"images": 16})
    trainee = LesionTraining(read_image_set(tmp_path / "two"), settings, 5, CPU)
    train(trainee, settings, tmp_path / "run", "w", silent)
    generator, kept = load_lesion_generator(tmp_path / "run" / "model", CPU)
    assert (kept.channels, generator(torch.zeros(3, 8), torch.zeros(3, dtype=torch.long)).shape) == (2, (3, 2, 32, 32))
    assert trainee.grid().shape == (2 * 33 + 1, 10 * 65 + 1), "channels lie side by side"


def test_adaptive_augmentation_resize_and_decay_train_resume_and_are_what_is_saved(images, tmp_path):
    settings = LESIONS.model_copy(
        update={"images": 24, "adaptive_augment": 0.6, "upsampling": "resize", "decay_from": 0.5}
    )

    def build():
        return LesionTraining(images, settings, 5, CPU)

    whole = build()
    train(whole, settings, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(build(), settings, tmp_path / "parts", "w", kill_at(20))
    train(build(), settings, tmp_path / "parts", "w", silent)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")
    assert "augment_probability" in pl.read_parquet(tmp_path / "whole" / "log.parquet").columns
    assert [whole.learning_rate_factor(done) for done in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]
    generator, kept = load_lesion_generator(tmp_path / "whole" / "model", CPU)
    assert kept.upsampling == "resize"
    assert isinstance(generator.ups[0], ResizeConv)


def test_virtual_batch_normalization_trains_resumes_and_is_what_is_saved(images, tmp_path):
    virtual = LESIONS.model_copy(update={"images": 16, "virtual_batch": 4})
    train(LesionTraining(images, virtual, 5, CPU), virtual, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(LesionTraining(images, virtual, 5, CPU), virtual, tmp_path / "parts", "w", kill_at(12))
    trainee = LesionTraining(images, virtual, 5, CPU)
    train(trainee, virtual, tmp_path / "parts", "w", silent)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")
    loaded, settings = load_lesion_generator(tmp_path / "parts" / "model", CPU)
    latent, classes = torch.randn(2, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1])
    assert settings.virtual_batch == 4
    assert torch.equal(loaded(latent, classes), trainee.step.sample(classes, latent))


def test_the_log_tells_how_far_and_how_varied_fakes_are(images, volumes, tmp_path):
    train(lesions(images), LESIONS.model_copy(update={"images": 8}), tmp_path / "lesions", "w", silent)
    train(mr_to_ct(volumes), MR_TO_CT.model_copy(update={"images": 4}), tmp_path / "mr", "w", silent)
    log = pl.read_parquet(tmp_path / "lesions" / "log.parquet")
    assert {"feature_diversity", "class_diversity", "fidelity_gap"} <= set(log.columns)
    assert log["fidelity_gap"][0] > 0.3  # untrained
    log = pl.read_parquet(tmp_path / "mr" / "log.parquet")
    assert {"feature_diversity_ct", "fidelity_gap_ct", "d_grad_norm", "g_grad_norm"} <= set(log.columns)


def test_recall_is_measured_on_validation_images_and_never_on_test_images(images, tmp_path):
    moved = images.table.with_columns(pl.col("split").replace({"test": "validation"}))
    trainee = LesionTraining(ImageSet(images.images, moved, images.facts), LESIONS, 5, CPU)
    assert len(trainee.probe_images(8).held_out) == 4
    assert len(lesions(images).probe_images(8).held_out) == 0
