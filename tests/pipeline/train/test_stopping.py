import os
import signal
import threading

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.records import silent
from pipeline.settings import TrainLesionsSettings, TrainMRToCTSettings
from pipeline.train.lesion_training import LesionTraining
from pipeline.train.loop import STOPPED, train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.train.stopping import stop_requests

LESIONS = TrainLesionsSettings(
    images=48, batch_size=4, width=4, latent_size=8, log_every_images=8, checkpoint_every_images=24,
    grid_every_images=16, alarms={"probe_images": 8},
)  # fmt: skip
MR_TO_CT = TrainMRToCTSettings(
    images=12, batch_size=2, width=4, discriminator_width=4, patch_px=32, slices=1, pool_size=3,
    log_every_images=6, checkpoint_every_images=12, grid_every_images=12, alarms={"probe_images": 8},
)  # fmt: skip


class Stopped(BaseException):
    """What the handler outside of the training raises."""


@pytest.fixture(autouse=True)
def handler():
    def stop(number, frame):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    yield stop
    assert signal.getsignal(signal.SIGTERM) is stop
    signal.signal(signal.SIGTERM, before)


def terminate_at(limit):
    def progress(what, done, total):
        if done == limit:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def weights(folder):
    found = {}
    for path in sorted((folder / "model").glob("*.safetensors")):
        found |= {f"{path.name}/{name}": tensor for name, tensor in load_file(path).items()}
    return found


@pytest.mark.parametrize("stop", [20, 44])
def test_a_terminated_training_loses_no_image_and_resumes_bit_for_bit(images, tmp_path, stop):
    make = lambda: LesionTraining(images, LESIONS, 5, torch.device("cpu"))  # noqa: E731
    train(make(), LESIONS, tmp_path / "whole", "w", silent)
    with pytest.raises(Stopped):
        train(make(), LESIONS, tmp_path / "parts", "w", terminate_at(stop))
    facts = train(make(), LESIONS, tmp_path / "parts", "w", silent)
    assert facts["resumed_at_images"] == stop  # no step is done twice
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [pl.read_parquet(tmp_path / name / "log.parquet") for name in ("whole", "parts")]
    assert logs[0].equals(logs[1])
    assert not (tmp_path / "parts" / STOPPED).exists()


def test_a_terminated_translation_resumes_bit_for_bit(volumes, tmp_path):
    make = lambda: MRToCTTraining(volumes, MR_TO_CT, 5, torch.device("cpu"))  # noqa: E731
    train(make(), MR_TO_CT, tmp_path / "whole", "w", silent)
    with pytest.raises(Stopped):
        train(make(), MR_TO_CT, tmp_path / "parts", "w", terminate_at(8))
    assert train(make(), MR_TO_CT, tmp_path / "parts", "w", silent)["resumed_at_images"] == 8
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def ask_twice():
    with stop_requests() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked.number == signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second signal was kept waiting")


def test_a_second_signal_does_not_wait():
    with pytest.raises(Stopped):
        ask_twice()


def test_a_signal_at_the_very_end_is_not_lost():
    with pytest.raises(Stopped), stop_requests():
        signal.raise_signal(signal.SIGTERM)


def test_other_threads_train_without_signals():
    seen = []

    def work():
        with stop_requests() as asked:
            seen.append(asked.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
