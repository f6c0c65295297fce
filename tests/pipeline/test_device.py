import pytest
import torch

from pipeline.device import available_memory_bytes, choose_device, describe_device
from pipeline.errors import ResourceError


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


def test_a_named_device_is_taken_even_where_a_faster_one_exists(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu").type == "cpu"


def test_a_device_that_is_missing_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ResourceError) as caught:
        choose_device("cuda")
    assert caught.value.found == "device: cuda"
    assert caught.value.allowed == "auto, cpu"


def test_the_description_counts_threads():
    assert describe_device(torch.device("cpu")) == f"cpu: {torch.get_num_threads()} threads"


def test_free_memory_is_some_but_not_more_than_the_machine_has():
    with open("/proc/meminfo", encoding="ascii") as stream:
        total = next(int(line.split()[1]) * 1024 for line in stream if line.startswith("MemTotal:"))
    assert 16 * 2**20 < available_memory_bytes() <= total
