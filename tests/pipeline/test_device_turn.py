import multiprocessing
import stat
import time

import pytest
import torch

from pipeline.device import turn_on
from pipeline.device_turn import DeviceTurn, device_turn, is_free, lock_folder, turns_shown
from pipeline.errors import ResourceError
from pipeline.records import silent

TURN = DeviceTurn("bench", "bench")


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def _hold(ready):
    with device_turn(TURN, silent):
        ready.set()
        time.sleep(60)


def _log(path, number):
    for _ in range(5):
        with device_turn(TURN, silent), path.open("a", encoding="utf-8") as log:
            log.write(f"{number} in\n")
            log.flush()
            time.sleep(0.01)
            log.write(f"{number} out\n")


@pytest.fixture
def holder():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(ready,))
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join(10)


def test_who_waits_is_told_for_whom_and_a_killed_holder_gives_its_turn_back(holder):
    told = []

    def progress(what, done, total):
        told.append((what, done, total))
        holder.kill()

    with device_turn(TURN, progress):
        assert told[0] == (f"s waiting for device bench, held by process {holder.pid}", 0, 0)


def test_another_device_is_not_waited_for(holder):
    with device_turn(DeviceTurn("other", "other"), lambda *_: pytest.fail("waited")), device_turn(None, silent):
        pass


def test_turns_never_overlap(tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_log, args=(log, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    lines = log.read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == 4 * 5 * 2
    assert all(lines[i].split()[0] == lines[i + 1].split()[0] for i in range(0, len(lines), 2))


def test_locks_lie_in_a_private_folder_of_this_user(tmp_path, monkeypatch):
    assert lock_folder() == tmp_path / "scanloom"
    assert stat.S_IMODE(lock_folder().stat().st_mode) == 0o700
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "trap"))
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "scanloom").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError, match="folder of another user"):
        lock_folder()


def test_the_cpu_is_shared_unless_a_word_is_agreed_on():
    cpu = torch.device("cpu")
    assert turn_on(cpu, "auto") is None
    assert turn_on(cpu, "off") is None
    assert turn_on(cpu, "bench") == TURN


@pytest.mark.parametrize("visible", ["0,1", "1", "GPU-b"])
def test_a_gpu_is_known_by_its_uuid_however_it_is_numbered(monkeypatch, visible):
    class Properties:
        uuid = "b"

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    index = 1 if visible == "0,1" else 0
    turn = turn_on(torch.device("cuda", index), "auto")
    assert turn == DeviceTurn("cuda-b", f"cuda:{index}")
    assert turn_on(torch.device("cuda"), "off") is None


def test_a_gpu_without_uuid_is_known_by_what_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: object())
    assert turn_on(torch.device("cuda", 1), "auto") == DeviceTurn("cuda-5", "cuda:1")


class Told:
    """Writes down what a watcher is told."""

    def __init__(self):
        self.lines = []

    def waits(self, turn, holder):
        self.lines.append(f"waits for {turn.name}, {holder}")

    def begins(self, turn):
        self.lines.append(f"begins {turn.name}")

    def ends(self, turn):
        self.lines.append(f"ends {turn.name}")


def test_who_watches_is_told_of_waiting_holding_and_giving_back(holder):
    told = Told()

    def stop_holder(what, done, total):
        holder.kill()

    with turns_shown(told), device_turn(TURN, stop_holder):
        assert not is_free("bench")
        assert set(told.lines[:-1]) == {f"waits for bench, process {holder.pid}"}
        assert told.lines[-1] == "begins bench"
    assert told.lines[-1] == "ends bench"
    assert is_free("bench")
    with device_turn(TURN, silent):
        assert told.lines[-1] == "ends bench", "after the block nobody is told"


def test_who_watches_hears_of_a_wait_that_was_given_up(holder):
    told = Told()

    def give_up(what, done, total):
        if told.lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), turns_shown(told), device_turn(TURN, give_up):
        pytest.fail("the device is held")
    assert told.lines[-1] == "ends bench"
