"""Everything of a training that changes, to and from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints import Checkpoint, flatten_optimizer, load_newest, restore_optimizer
from pipeline.errors import TrainingError
from pipeline.train.trainee import Trainee


def checkpoint_of(trainee: Trainee, images: int, rows: list[dict[str, Any]]) -> Checkpoint:
    """The state after ``images`` training images, with the log so far."""
    tensors: dict[str, Tensor] = {}
    optimizers = {}
    for name, network in trainee.step.networks().items():
        tensors |= {f"network/{name}/{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in trainee.step.optimizers().items():
        flat, optimizers[name] = flatten_optimizer(f"optimizer/{name}", optimizer)
        tensors |= flat
    tensors |= {f"extra/{name}": value for name, value in trainee.step.extra_state().items()}
    tensors |= {f"generator/{name}": rng.get_state() for name, rng in trainee.generators.items()}
    return Checkpoint(tensors, {"images": images, "rows": rows, "optimizers": optimizers})


def newest_checkpoint(trainee: Trainee, folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint below ``folder``, once it is known to fit; None where there is none.

    Raises:
        TrainingError: every checkpoint is damaged, or the newest intact one is of other networks.
    """
    found = load_newest(folder)
    if found is not None:
        _require_match(trainee, found)
    return found


def restore(trainee: Trainee, found: Checkpoint) -> tuple[int, list[dict[str, Any]]]:
    """Put a training into the state of a checkpoint; returns the images shown until then and the log rows."""
    for name, network in trainee.step.networks().items():
        network.load_state_dict(_part(found.tensors, f"network/{name}/"))
    for name, optimizer in trainee.step.optimizers().items():
        restore_optimizer(f"optimizer/{name}", optimizer, found.tensors, found.state["optimizers"][name])
    device = next(iter(trainee.step.networks().values())).parameters().__next__().device
    trainee.step.load_extra_state({name: value.to(device) for name, value in _part(found.tensors, "extra/").items()})
    for name, rng in trainee.generators.items():
        rng.set_state(found.tensors[f"generator/{name}"])
    return int(found.state["images"]), [dict(row) for row in found.state["rows"]]


def _require_match(trainee: Trainee, found: Checkpoint) -> None:
    """Refuse a checkpoint of another architecture before any weight is touched."""
    own = {
        f"network/{name}/{key}": tuple(value.shape)
        for name, network in trainee.step.networks().items()
        for key, value in network.state_dict().items()
    }
    given = {name: tuple(value.shape) for name, value in found.tensors.items() if name.startswith("network/")}
    odd = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    optimizers = set(found.state.get("optimizers", ()))
    if odd or optimizers != set(trainee.step.optimizers()):
        first = f", first {odd[0]}: checkpoint {given.get(odd[0])}, network {own.get(odd[0])}" if odd else ""
        raise TrainingError(
            "A training can only be resumed from a checkpoint of the same networks.",
            found=f"{len(odd)} tensors that differ{first}",
            allowed="equal names and shapes",
            change="Resume with the settings of the first run, or start again with --fresh.",
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice: CUDA has a type for it, CPU and MPS have words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
