import shutil

import pytest
import torch
from torch import nn

from pipeline.checkpoints import (
    KEPT_GENERATIONS,
    TENSORS_FILE,
    Checkpoint,
    flatten_optimizer,
    generations,
    load_newest,
    load_weights,
    restore_optimizer,
    save_checkpoint,
    save_tensors,
)
from pipeline.errors import TrainingError


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"a": torch.full((300,), value), "b": torch.arange(4)}, {"images": value})


def test_round_trip_is_exact(tmp_path):
    save_checkpoint(tmp_path, 7, checkpoint(0.1))
    found = load_newest(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["a"], checkpoint(0.1).tensors["a"])
    assert found.tensors["b"].dtype == torch.int64
    assert found.state == {"images": 0.1}


def test_nothing_there_is_no_error(tmp_path):
    assert load_newest(tmp_path / "none") is None


def test_only_the_newest_generations_stay(tmp_path):
    for images in (5, 50, 500, 5000):
        save_checkpoint(tmp_path, images, checkpoint(images))
    assert [int(path.name) for path in generations(tmp_path)] == [500, 5000]
    assert len(generations(tmp_path)) == KEPT_GENERATIONS


def test_every_flipped_byte_is_seen_and_the_generation_before_it_serves(tmp_path):
    save_checkpoint(tmp_path, 1, checkpoint(1))
    path = save_checkpoint(tmp_path, 2, checkpoint(2)) / TENSORS_FILE
    whole = path.read_bytes()
    for place in range(0, len(whole), 64):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = load_newest(tmp_path)
        assert found is not None
        assert found.state == {"images": 1}
    path.write_bytes(whole[:-1])
    assert load_newest(tmp_path).state == {"images": 1}
    path.write_bytes(whole)
    assert load_newest(tmp_path).state == {"images": 2}


def test_when_all_are_damaged_the_error_says_so(tmp_path):
    path = save_checkpoint(tmp_path, 1, checkpoint(1))
    (path / TENSORS_FILE).write_bytes(b"")
    with pytest.raises(TrainingError, match="damaged"):
        load_newest(tmp_path)


def test_an_interrupted_save_leaves_the_old_generation(tmp_path):
    old = save_checkpoint(tmp_path, 1, checkpoint(1))
    shutil.copytree(old, tmp_path / "0000000002.partial")
    assert load_newest(tmp_path).state == {"images": 1}


def test_weights_of_another_architecture_are_refused_by_name(tmp_path):
    save_tensors(tmp_path / "w.safetensors", nn.Linear(3, 2).state_dict())
    with pytest.raises(TrainingError, match=r"weight: file \(2, 3\), network \(2, 4\)"):
        load_weights(tmp_path / "w.safetensors", nn.Linear(4, 2))


def test_a_pickle_is_never_loaded_as_weights(tmp_path):
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (canary.write_text, ("executed",))

    torch.save({"weight": Payload()}, tmp_path / "w.safetensors")
    with pytest.raises(TrainingError):
        load_weights(tmp_path / "w.safetensors", nn.Linear(3, 2))
    assert not canary.exists()


def test_an_optimizer_goes_on_exactly(tmp_path):
    def start():
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        return network, torch.optim.Adam(network.parameters(), 0.1, betas=(0.5, 0.9))

    def advance(network, optimizer, steps):
        for number in range(steps):
            optimizer.zero_grad()
            network(torch.full((1, 3), 1.0 + number)).square().sum().backward()
            optimizer.step()

    network, optimizer = start()
    advance(network, optimizer, 3)
    tensors, state = flatten_optimizer("o", optimizer)
    save_checkpoint(tmp_path, 1, Checkpoint(tensors | dict(network.state_dict()), {"o": state}))
    found = load_newest(tmp_path)
    other, other_optimizer = start()
    other.load_state_dict({name: found.tensors[name] for name in ("weight", "bias")})
    restore_optimizer("o", other_optimizer, found.tensors, found.state["o"])
    advance(network, optimizer, 4)
    advance(other, other_optimizer, 4)
    assert torch.equal(network.weight, other.weight)


def test_moments_return_in_the_memory_layout_of_their_weights():
    """Fused Adam walks weight, gradient and moments in memory order: another layout would mix up the moments."""

    def moved(store: bool) -> torch.Tensor:
        rng = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(4, 3, 2, 2, generator=rng).to(memory_format=torch.channels_last))
        optimizer = torch.optim.Adam([weight], 0.1, fused=True)
        for step in range(4):
            if store and step == 2:
                tensors, state = flatten_optimizer("o", optimizer)
                stored = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
                restore_optimizer("o", optimizer, stored, state)
            weight.grad = torch.randn(4, 3, 2, 2, generator=rng).to(memory_format=torch.channels_last)
            optimizer.step()
        return weight.detach()

    assert torch.equal(moved(store=False), moved(store=True))
