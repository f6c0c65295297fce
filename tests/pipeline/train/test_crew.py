"""A crew trains as one process does, goes on from what another number left, and stops when one is told to."""

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from models.ranks import RankLostError
from pipeline.errors import SettingsError, TrainingError
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.assignment import Assignment
from pipeline.train.crew import ASSIGNED, DISMISSED, NO_CREW, STEP, Crew, follow
from pipeline.train.loop import train

CPU = torch.device("cpu")
LESIONS = TrainLesionsSettings(
    images=24, batch_size=4, width=4, latent_size=8, log_every_images=8, checkpoint_every_images=8,
    grid_every_images=24, mirror=True, spectral_norm=False, learning_rate_generator=1e-4,
    learning_rate_discriminator=1e-4, alarms={"probe_images": 0},
)  # fmt: skip
MR_TO_CT = TrainMRToCTSettings(
    images=12, batch_size=2, width=4, discriminator_width=4, patch_px=32, supervision="mixed", pool_size=3,
    log_every_images=4, checkpoint_every_images=4, grid_every_images=12, augment_look=0.5, alarms={"probe_images": 0},
)  # fmt: skip
"""Without spectral norms, which start from torch's global generator: ranks are threads here, and share it."""


class Killed(BaseException):
    """Stands for a kill between two steps."""


def assignment(settings, prepared):
    track = "lesions" if isinstance(settings, TrainLesionsSettings) else "mr_to_ct"
    return Assignment(
        track=track, settings=settings.model_dump_json(), seed=5, prepared=prepared, device="cpu", device_turns="off"
    )


def led(crew, settings, prepared, folder, until=None):
    def progress(what, done, total):
        if until is not None and done >= until:
            raise Killed

    order = assignment(settings, prepared)
    try:
        training = order.build(CPU, crew.ranks)
        crew.assign(order)
        train(training, settings, folder, "images", progress, crew)
        crew.finish()
    except Killed:
        pass
    finally:
        crew.dismiss()


def in_crew(in_ranks, settings, prepared, folder, until=None):
    def work(ranks):
        crew = Crew(ranks, CPU)
        return led(crew, settings, prepared, folder, until) if crew.leads else follow(crew)

    in_ranks(2, work)


def weights(folder):
    tensors = [value for path in sorted((folder / "model").glob("*.safetensors")) for value in load_file(path).values()]
    return torch.cat([value.flatten().float() for value in tensors])


def assert_close(one, other):
    first, second = weights(one), weights(other)
    assert float((first - second).norm() / second.norm()) < 0.005
    rows, expected = (pl.read_parquet(folder / "log.parquet") for folder in (one, other))
    assert rows["images"].to_list() == expected["images"].to_list()
    for name in ("d_loss", "g_loss"):
        assert rows[name].to_list() == pytest.approx(expected[name].to_list(), rel=0.02, abs=0.02)


@pytest.mark.parametrize("track", ["lesions", "mr_to_ct"])
def test_another_number_of_processes_trains_the_same_model_from_any_checkpoint(
    track, images, volumes, tmp_path, in_ranks
):
    settings, prepared = (LESIONS, tmp_path / "lesions") if track == "lesions" else (MR_TO_CT, tmp_path / "volumes")
    alone, crew, parted, joined = (tmp_path / name for name in ("alone", "crew", "parted", "joined"))
    half = settings.images // 2
    led(NO_CREW, settings, prepared, alone)
    in_crew(in_ranks, settings, prepared, crew)
    assert_close(crew, alone)
    in_crew(in_ranks, settings, prepared, parted, until=half)
    led(NO_CREW, settings, prepared, parted)
    assert_close(parted, alone)
    led(NO_CREW, settings, prepared, joined, until=half)
    in_crew(in_ranks, settings, prepared, joined)
    assert_close(joined, alone)


def test_a_batch_that_cannot_be_shared_is_refused(in_ranks):
    def work(ranks):
        with pytest.raises(SettingsError, match="batch_size 5 with 2 processes"):
            Crew(ranks).require_share(5)

    in_ranks(2, work)
    NO_CREW.require_share(5)


def test_a_follower_that_is_told_to_stop_tells_the_leader(in_ranks):
    def work(ranks):
        crew = Crew(ranks)
        if not crew.leads:
            return [crew.next_order(stopping=asked).kind for asked in (False, True, True)]
        seen = []
        for number in (1, 2):
            with crew.step(1.0, 0.5, 4):
                seen.append((number, crew.stop_asked))
        crew.dismiss()
        return seen

    assert in_ranks(2, work) == [[(1, False), (2, True)], [STEP, STEP, DISMISSED]]


def test_followers_are_told_exactly(in_ranks, tmp_path):
    def work(ranks):
        crew = Crew(ranks)
        if crew.leads:
            crew.assign(assignment(LESIONS, tmp_path))
            with crew.step(0.1, 1 / 3, 32):
                return None
        order = crew.next_order(stopping=False)
        return order.kind, crew.assigned(), crew.next_order(stopping=False)

    _, (kind, told, step) = in_ranks(2, work)
    assert (kind, told) == (ASSIGNED, assignment(LESIONS, tmp_path))
    assert step == (STEP, 0.1, 1 / 3, 32)


def test_a_lost_process_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with pytest.raises(TrainingError, match="run the same command again"), NO_CREW.together():
        raise RankLostError
