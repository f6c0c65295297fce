"""Alarms in the loop: what is recorded, what is stopped, going back, and exactness through all of it."""

from collections import Counter

import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.losses import NonFiniteLossError
from pipeline.checkpoints import generations
from pipeline.errors import InputError, ResourceError, TrainingError
from pipeline.intensity import to_int16
from pipeline.prepared_set import ImageSet
from pipeline.records import silent
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.train.training_state import is_out_of_memory
from pipeline.training_alarms import ALARMS_FILE, alarm_table, read_alarms

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for a kill between two steps."""


def settings(action="warn", **changes):
    values = {
        "images": 40, "batch_size": 4, "width": 4, "latent_size": 8, "log_every_images": 4,
        "checkpoint_every_images": 8, "grid_every_images": 16,
    }  # fmt: skip
    alarms = {"action": action, "patience": 2, "grace_images": 0, "probe_images": 0, "max_rollbacks": 2}
    return TrainLesionsSettings(**(values | {"alarms": alarms} | changes))


def training(images, run, **faults):
    """A lesion training with a fault: ``broken(images shown, learning rate of G) -> exception or None`` before a step,
    ``terms(images shown, learning rate of G) -> further terms`` after it."""
    trainee = LesionTraining(images, run, 5, CPU)
    whole, shown = trainee.train_batch, Counter()

    def train_batch():
        done = shown["images"]
        rate = trainee.step.optimizers()["generator"].param_groups[0]["lr"]
        error = faults.get("broken", lambda *_: None)(done, rate)
        if error is not None:
            raise error
        terms = whole() | faults.get("terms", lambda *_: {})(done, rate)
        shown["images"] += trainee.batch_size
        return terms

    def restored(state):
        load(state)
        shown["images"] = int(state["steps"]) * run.batch_size

    trainee.train_batch, load = train_batch, trainee.step.load_extra_state
    trainee.step.load_extra_state = restored
    return trainee


def kill_at(limit):
    """Killed once ``limit`` steps are done, whatever their number of images."""
    steps = Counter()

    def progress(*_):
        steps["done"] += 1
        if steps["done"] >= limit:
            raise Killed

    return progress


def contents(folder):
    """Everything that a training leaves behind, but times."""
    weights = {path.name: load_file(path) for path in sorted((folder / "model").glob("*.safetensors"))}
    pictures = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*s/*.png")}
    return weights, pl.read_parquet(folder / "log.parquet"), (folder / ALARMS_FILE).read_text(), pictures


def assert_same(one, other):
    first, second = contents(one), contents(other)
    for name, weights in first[0].items():
        assert all(torch.equal(value, second[0][name][key]) for key, value in weights.items())
    assert first[1].equals(second[1])
    assert first[2:] == second[2:]


def collapsed_from(start, *, until_rate=0.0):
    """Terms of a G that gives one image from ``start`` on, unless its learning rate is low enough."""
    return lambda done, rate: {"diversity": torch.tensor(0.0)} if done >= start and rate > until_rate else {}


def test_a_healthy_training_has_an_empty_record(images, tmp_path):
    run = settings(images=8)
    facts = train(training(images, run), run, tmp_path, "w", silent)
    assert read_alarms(tmp_path) == ()
    assert (tmp_path / ALARMS_FILE).is_file()
    assert facts["alarms"] == []
    assert "alarm" not in pl.read_parquet(tmp_path / "log.parquet").columns


def test_a_warning_is_in_the_log_the_record_the_facts_and_has_a_picture(images, tmp_path):
    run = settings()
    facts = train(training(images, run, terms=collapsed_from(12)), run, tmp_path, "w", silent)
    (alarm,) = read_alarms(tmp_path)
    assert (alarm.alarm, alarm.images, alarm.action, alarm.to_images) == ("diversity_lost", 20, "warn", None)
    log = pl.read_parquet(tmp_path / "log.parquet")
    assert log.filter(pl.col("alarm").is_not_null()).select("images", "alarm").rows() == [(20, "diversity_lost")]
    with Image.open(tmp_path / alarm.picture) as picture:
        assert picture.size[0] > 32
    assert facts["alarms"] == [alarm.sentence()]
    assert facts["images"] == 40
    (row,) = alarm_table([alarm]).rows
    assert row["found"] == "diversity 0.000"


def test_stopping_leaves_the_log_the_record_and_the_last_checkpoint(images, tmp_path):
    run = settings("stop")
    with pytest.raises(TrainingError, match=r"diversity_lost[\s\S]*after 20 images"):
        train(training(images, run, terms=collapsed_from(12)), run, tmp_path, "w", silent)
    assert read_alarms(tmp_path)[0].action == "stop"
    assert pl.read_parquet(tmp_path / "log.parquet")["images"].max() == 20
    assert int(generations(tmp_path / "checkpoints")[-1].name) == 16
    assert not (tmp_path / "model").exists()


def test_all_alarms_of_a_row_are_recorded_before_the_training_ends(images, tmp_path):
    run = settings("stop", objective="hinge")
    both = {"diversity": torch.tensor(0.0), "d_loss": torch.tensor(0.0)}
    with pytest.raises(TrainingError, match="discriminator_won"):
        train(training(images, run, terms=lambda done, rate: both), run, tmp_path, "w", silent)
    assert [alarm.alarm for alarm in read_alarms(tmp_path)] == ["discriminator_won", "diversity_lost"]
    assert len({alarm.picture for alarm in read_alarms(tmp_path)}) == 2
    assert pl.read_parquet(tmp_path / "log.parquet")["alarm"][-1] == "discriminator_won, diversity_lost"


def test_going_back_halves_the_learning_rates_and_goes_on_from_before_the_trouble(images, tmp_path):
    run = settings("roll_back")
    trainee = training(images, run, terms=collapsed_from(12, until_rate=6e-4))
    train(trainee, run, tmp_path, "w", silent)
    (alarm,) = read_alarms(tmp_path)
    # rows 16 and 20 show it; the checkpoint due at 16 was not written, so that 8 is the last good one
    assert (alarm.action, alarm.images, alarm.to_images) == ("roll_back", 20, 8)
    rates = {name: each.param_groups[0]["lr"] for name, each in trainee.step.optimizers().items()}
    assert rates == {"generator": 5e-4, "discriminator": 5e-4}
    log = pl.read_parquet(tmp_path / "log.parquet")
    assert log["images"].to_list() == list(range(4, 44, 4))
    assert log["diversity"].min() > 0
    assert (tmp_path / alarm.picture).is_file()


def test_trouble_that_stays_ends_the_training_after_the_last_going_back(images, tmp_path):
    run = settings("roll_back")
    with pytest.raises(TrainingError, match="diversity_lost"):
        train(training(images, run, terms=collapsed_from(12)), run, tmp_path, "w", silent)
    assert [alarm.action for alarm in read_alarms(tmp_path)] == ["roll_back", "roll_back", "stop"]


def test_a_non_finite_loss_goes_back_too(images, tmp_path):
    run = settings("roll_back")

    def broken(done, rate):
        return NonFiniteLossError("d_loss", float("nan")) if done == 20 and rate > 6e-4 else None

    train(training(images, run, broken=broken), run, tmp_path, "w", silent)
    (alarm,) = read_alarms(tmp_path)
    assert (alarm.alarm, alarm.found, alarm.to_images) == ("non_finite", "d_loss = nan", 16)


def test_a_checkpoint_owed_through_trouble_that_passes_is_written_after_it(images, tmp_path):
    run = settings("roll_back", images=20)
    passing = training(images, run, terms=lambda done, rate: collapsed_from(4)(done, rate) if done < 8 else {})
    with pytest.raises(Killed):
        train(passing, run, tmp_path, "w", kill_at(4))  # before the look at 16
    # the row at 8 shows trouble: that checkpoint waits for the row at 12
    assert [int(path.name) for path in generations(tmp_path / "checkpoints")] == [0, 12]
    assert read_alarms(tmp_path) == ()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [3, 5, 6, 8, 11])
def test_a_kill_before_and_after_going_back_changes_nothing(images, tmp_path, kill):
    # steps 1 to 5 lead to the alarm at 20 images, the 6th is the first one after going back to 8
    run = settings("roll_back")
    faults = {"terms": collapsed_from(12, until_rate=6e-4)}
    train(training(images, run, **faults), run, tmp_path / "whole", "w", silent)
    with pytest.raises(Killed):
        train(training(images, run, **faults), run, tmp_path / "parts", "w", kill_at(kill))
    train(training(images, run, **faults), run, tmp_path / "parts", "w", silent)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "moment",
    ["record", pytest.param("restore", marks=pytest.mark.slow), pytest.param("restored", marks=pytest.mark.slow)],
)
def test_a_kill_in_the_middle_of_going_back_changes_nothing(images, tmp_path, moment, monkeypatch):
    run = settings("roll_back")
    faults = {"terms": collapsed_from(12, until_rate=6e-4)}
    train(training(images, run, **faults), run, tmp_path / "whole", "w", silent)
    with monkeypatch.context() as patch:
        _kill_while_going_back(patch, moment)
        with pytest.raises(Killed):
            train(training(images, run, **faults), run, tmp_path / "parts", "w", silent)
    train(training(images, run, **faults), run, tmp_path / "parts", "w", silent)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def _kill_while_going_back(patch, moment):
    """Before the record is written, before anything is restored, or when everything is."""
    if moment == "record":
        patch.setattr("pipeline.train.course.write_alarms", _killed_when(lambda _, alarms: bool(alarms)))
    elif moment == "restore":
        patch.setattr("pipeline.train.loop.restore", _killed_when(lambda *_: True))
    else:
        patch.setattr("pipeline.train.loop.Course.keep_until", _killed_when(lambda self, images: images is not None))


def _killed_when(condition):
    def instead(*arguments):
        if condition(*arguments):
            raise Killed

    return instead


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_after_going_back_changes_nothing(images, tmp_path):
    run = settings("roll_back")
    faults = {"terms": collapsed_from(20, until_rate=6e-4)}
    train(training(images, run, **faults), run, tmp_path / "whole", "w", silent)
    (alarm,) = read_alarms(tmp_path / "whole")
    assert alarm.to_images == 16
    with pytest.raises(Killed):
        train(training(images, run, **faults), run, tmp_path / "parts", "w", kill_at(8))  # went back, first step done
    newest = generations(tmp_path / "parts" / "checkpoints")[-1]
    assert int(newest.name) == 16
    state = newest / "state.json"
    state.write_bytes(state.read_bytes()[:-3])
    train(training(images, run, **faults), run, tmp_path / "parts", "w", silent)
    assert_same(tmp_path / "whole", tmp_path / "parts")


# --- memory


def memory_bound(images, run, at, above, error=torch.OutOfMemoryError):
    trainee = None

    def broken(done, rate):
        return (
            error("DefaultCPUAllocator: can't allocate memory") if done >= at and trainee.batch_size > above else None
        )

    trainee = training(images, run, broken=broken)
    return trainee


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError,
        pytest.param(MemoryError, marks=pytest.mark.slow),
        pytest.param(RuntimeError, marks=pytest.mark.slow),
    ],
)
def test_the_batch_is_halved_once_and_that_is_recorded(images, tmp_path, error):
    run = settings()
    trainee = memory_bound(images, run, 20, 2, error)
    facts = train(trainee, run, tmp_path, "w", silent)
    (alarm,) = read_alarms(tmp_path)
    assert (alarm.alarm, alarm.action, alarm.images, alarm.to_images) == ("out_of_memory", "halve_batch", 20, 16)
    assert "a batch of 4 did not fit; 2 from here on" in facts["alarms"][0]
    assert trainee.batch_size == 2
    assert facts["images"] == 40


def test_a_second_lack_of_memory_ends_the_training(images, tmp_path):
    run = settings(batch_size=8)
    with pytest.raises(ResourceError, match="batch of 4"):
        train(memory_bound(images, run, 16, 2), run, tmp_path, "w", silent)
    with pytest.raises(ResourceError, match="batch of 4"):  # again after a resume
        train(memory_bound(images, run, 16, 2), run, tmp_path, "w", silent)


def test_a_batch_that_cannot_be_halved_ends_the_training(images, tmp_path):
    run = settings(batch_size=2)
    with pytest.raises(ResourceError, match="batch of 2"):
        train(memory_bound(images, run, 8, 1), run, tmp_path, "w", silent)


def test_what_torch_says_when_the_memory_of_the_machine_does_not_suffice_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_other_errors_of_the_runtime_are_not_taken_for_a_lack_of_memory(images, tmp_path):
    run = settings()
    trainee = training(images, run, broken=lambda done, rate: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(trainee, run, tmp_path, "w", silent)


@pytest.mark.slow
def test_a_kill_after_halving_changes_nothing(images, tmp_path):
    run = settings()
    train(memory_bound(images, run, 20, 2), run, tmp_path / "whole", "w", silent)
    for kill in (6, 7):
        with pytest.raises(Killed):
            train(memory_bound(images, run, 20, 2), run, tmp_path / "parts", "w", kill_at(kill))
    train(memory_bound(images, run, 20, 2), run, tmp_path / "parts", "w", silent)
    assert_same(tmp_path / "whole", tmp_path / "parts")


# --- real faults


def test_a_constant_generator_raises_the_alarm_without_any_injected_term(images, tmp_path):
    run = settings("stop")
    trainee = LesionTraining(images, run, 5, CPU)
    for network in (trainee.step.generator, trainee.step.ema.average):
        for parameter in network.to_image.parameters():
            with torch.no_grad():
                parameter.zero_()
            if parameter.requires_grad:
                parameter.register_hook(torch.zeros_like)
    with pytest.raises(TrainingError, match="diversity_lost"):
        train(trainee, run, tmp_path, "w", silent)


def test_a_constant_translator_raises_the_alarm_of_its_target(volumes, tmp_path):
    run = TrainMRToCTSettings(
        images=8, batch_size=2, width=4, discriminator_width=4, patch_px=32, supervision="mixed", log_every_images=2,
        alarms={"action": "stop", "patience": 2, "grace_images": 0, "probe_images": 8},
    )  # fmt: skip
    trainee = MRToCTTraining(volumes, run, 5, CPU)
    trainee.variety = {}  # three ellipses are too much alike, as the alarm about data rightly says
    for name in ("mr_to_ct", "mr_to_ct_ema"):
        for parameter in list(trainee.step.networks()[name].parameters())[-2:]:
            with torch.no_grad():
                parameter.zero_()
            if parameter.requires_grad:
                parameter.register_hook(torch.zeros_like)
    with pytest.raises(TrainingError, match=r"diversity_lost[\s\S]*feature_diversity_ct 0.000 after 4 images"):
        train(trainee, run, tmp_path, "w", silent)
    assert read_alarms(tmp_path)[-1].target == "_ct"


@pytest.mark.parametrize("action", ["warn", "stop", "roll_back"])
def test_copies_of_one_image_under_faint_noise_raise_the_alarm_before_any_step(images, tmp_path, action):
    rng = torch.Generator().manual_seed(1)
    array = images.images.copy()
    for name in images.classes:
        rows = images.table.filter(pl.col("lesion_class") == name)["image"].to_list()
        noise = 0.005 * torch.randn(len(rows), *array.shape[1:], generator=rng).numpy()
        array[rows] = array[rows[0]] + to_int16(noise)
    run = settings(action, images=8)
    trainee = LesionTraining(ImageSet(array, images.table, images.facts), run, 5, CPU)
    if action == "warn":
        train(trainee, run, tmp_path, "w", silent)
    else:
        with pytest.raises(TrainingError, match="data_without_variety"):
            train(trainee, run, tmp_path, "w", silent)
    assert {alarm.alarm for alarm in read_alarms(tmp_path) if alarm.images == 0} == {"data_without_variety"}


def test_a_nan_in_a_batch_goes_back_and_the_training_reaches_its_end(images, tmp_path):
    run = settings("roll_back", images=16)
    trainee = LesionTraining(images, run, 5, CPU)
    whole, calls = trainee.step.step, Counter()

    def step(batch, classes):
        calls["steps"] += 1
        return whole(batch * float("nan") if calls["steps"] == 3 else batch, classes)

    trainee.step.step = step
    assert train(trainee, run, tmp_path, "w", silent)["images"] == 16
    (alarm,) = read_alarms(tmp_path)
    assert (alarm.alarm, alarm.found, alarm.to_images) == ("non_finite", "d_loss = nan", 8)


# --- checkpoints and record from elsewhere


def test_a_checkpoint_of_other_networks_is_refused_before_anything_is_loaded(images, tmp_path):
    run, wider = settings(images=8), settings(images=16, width=6)
    train(LesionTraining(images, run, 5, CPU), run, tmp_path, "w", silent)
    trainee = LesionTraining(images, wider, 5, CPU)
    before = [value.clone() for value in trainee.step.generator.state_dict().values()]
    with pytest.raises(TrainingError, match=r"same networks[\s\S]*checkpoint \(.*network \("):
        train(trainee, wider, tmp_path, "w", silent)
    after = trainee.step.generator.state_dict().values()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_flipped_bit_in_every_checkpoint_is_a_clear_error(images, tmp_path):
    run = settings(images=16)
    train(LesionTraining(images, run, 5, CPU), run, tmp_path, "w", silent)
    for path in generations(tmp_path / "checkpoints"):
        tensors = path / "tensors.safetensors"
        content = bytearray(tensors.read_bytes())
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    with pytest.raises(TrainingError, match="all of them damaged"):
        train(LesionTraining(images, run, 5, CPU), run, tmp_path, "w", silent)


def test_a_damaged_record_of_alarms_is_a_clear_error(images, tmp_path):
    run = settings(images=8)
    train(LesionTraining(images, run, 5, CPU), run, tmp_path, "w", silent)
    (tmp_path / ALARMS_FILE).write_text('[{"alarm": "rm -rf"}]')
    with pytest.raises(TrainingError, match="must be readable"):
        train(LesionTraining(images, run, 5, CPU), run, tmp_path, "w", silent)


def test_volumes_with_other_slices_do_not_fit_a_checkpoint(volumes, tmp_path):
    def run(slices):
        return TrainMRToCTSettings(
            images=2, batch_size=2, width=4, discriminator_width=4, patch_px=32, slices=slices,
            supervision="mixed",
        )  # fmt: skip

    train(MRToCTTraining(volumes, run(1), 5, CPU), run(1), tmp_path, "w", silent)
    with pytest.raises(TrainingError, match="same networks"):
        train(MRToCTTraining(volumes, run(3), 5, CPU), run(3), tmp_path, "w", silent)


def test_an_unusable_class_is_refused_before_any_network_is_built(images, monkeypatch):
    table = images.table.with_columns(pl.lit("test").alias("split"))
    monkeypatch.setattr("pipeline.train.lesion_training.build_lesion_generator", None)
    with pytest.raises(InputError, match="0 images"):
        LesionTraining(ImageSet(images.images, table, images.facts), settings(), 5, CPU)
