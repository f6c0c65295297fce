"""A trained network as a program that runs without scanloom: torch.export or ONNX, checked against the network itself.

The lesion generator takes ``latent`` (N, latent size) and ``classes`` (N,); attributes, where it has some, are left
open. The MR-to-CT translator takes ``stack`` (N, slices and coordinates, P, P). N is free, all else is fixed.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.lesion_gan.conditions import AttributeCode
from models.lesion_gan.generator import DCGANGenerator
from pipeline.errors import InputError, TrainingError
from pipeline.trained_models import load_lesion_generator, load_translator

LARGEST_DIFFERENCE = 1e-4
"""Largest difference, in network units of [-1, 1], at which a program counts as the network."""

_OPSET = 17
_MOST_AT_ONCE = 4096
_CPU = torch.device("cpu")


class _OpenAttributes(AttributeCode):
    """The code of attributes that are all missing, as one row that does not hang on values."""

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__(levels)
        self._row = super().__call__(torch.zeros(1, dtype=torch.long))

    def __call__(self, conditions: Tensor) -> Tensor:
        return self._row.expand(conditions.shape[0], -1)


def lesion_network(model: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The averaged lesion generator on the CPU, and inputs for it: one latent for each class, two at least."""
    network, settings = load_lesion_generator(model, _CPU)
    if isinstance(network, DCGANGenerator) and settings.attributes:
        network.attribute_code = _OpenAttributes(settings.attribute_levels)
    number = max(2, len(settings.classes))
    latent = torch.randn(number, settings.latent_size, generator=torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # torch.export warns of weights that lie channels last
    return network, {"latent": latent, "classes": torch.arange(number) % len(settings.classes)}


def translator_network(model: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The averaged MR-to-CT translator on the CPU, and two stacks for it."""
    network, settings = load_translator(model, _CPU)
    channels = settings.channels
    rng = torch.Generator().manual_seed(0)
    return network, {"stack": torch.rand(2, channels, settings.patch_px, settings.patch_px, generator=rng) * 2 - 1}


def write_torch_program(network: nn.Module, inputs: dict[str, Tensor], path: Path) -> float:
    """Write ``network`` with torch.export; returns the largest difference found between program and network.

    Raises:
        TrainingError: the program does not give what the network gives.
    """
    free = torch.export.Dim("n", min=1, max=_MOST_AT_ONCE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, tuple(inputs.values()), dynamic_shapes=tuple({0: free} for _ in inputs))
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    return _checked(network, inputs, lambda more: loaded(*more.values()))


def write_onnx_program(network: nn.Module, inputs: dict[str, Tensor], path: Path) -> float:
    """Write ``network`` as ONNX; returns the largest difference found between ONNX Runtime and the network.

    Raises:
        InputError: ONNX or ONNX Runtime is not installed.
        TrainingError: the program does not give what the network gives.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            "An ONNX file is written and checked by two packages.",
            found=f"not installed: {', '.join(missing)}",
            allowed="onnx and onnxruntime",
            change="Run `pip install 'scanloom[onnx]'`, or choose another format.",
        )
    import onnxruntime

    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter by tracing warns of its age and of branches; what it writes is checked below.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=["images"],
            dynamic_axes={name: {0: "n"} for name in (*inputs, "images")},
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(more: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in more.items()})[0])

    return _checked(network, inputs, run)


def _checked(network: nn.Module, inputs: dict[str, Tensor], program: Any) -> float:
    """Largest difference on inputs of three other batch sizes: all, one, and twice as many."""
    differences = []
    for more in (
        inputs,
        {name: value[:1] for name, value in inputs.items()},
        {name: torch.cat([value, value.flip(0)]) for name, value in inputs.items()},
    ):
        with torch.no_grad():
            differences.append(float((program(more) - network(*more.values())).abs().max()))
    largest = max(differences)
    if not largest <= LARGEST_DIFFERENCE:
        raise TrainingError(
            "An exported program must give what the network gives.",
            found=f"a largest difference of {largest:.3g} of network units",
            allowed=f"at most {LARGEST_DIFFERENCE:g}",
            change="Choose another share.format, and report this with your versions of torch and ONNX.",
        )
    return largest
