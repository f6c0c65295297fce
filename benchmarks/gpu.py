"""Training steps of the lesion GAN on any device, in several forms, beside a plain loop; needs torch and `models/`.

    python -m benchmarks.gpu --device cuda --script PATH/dcgan/main.py --out gpu.json

The plain loop trains its networks as the DCGAN example of PyTorch does (github.com/pytorch/examples): in float32, D on
real and fake images apart, both layouts and Adam as they come. Its networks are those of the script named, or our
`dcgan_classic` where none is. Ours trains networks of equal shape: in float32, in bfloat16, and in bfloat16 with both
networks compiled (``--compile``: graphs of kernels on CUDA). Each form takes its turn in every round; times are of the
clock on the wall, after the device has finished. ``--tiny`` is for trying it out where there is no accelerator.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.script_networks import networks_of
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings
from models.optimization import Precision

RATE, BETAS, LATENT = 2e-4, (0.5, 0.999), 100
Step = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """What a step works on."""

    side: int = 64
    width: int = 64
    batch: int = 128
    steps: int = 20
    rounds: int = 5


TINY = Size(side=32, width=4, batch=4, steps=1, rounds=2)


def forms(size: Size, device: torch.device, script: Path | None, compiled: bool) -> dict[str, Step]:
    """Every form by name; the first is the plain loop."""
    images = torch.rand(size.batch, 1, size.side, size.side, device=device) * 2 - 1
    found: dict[str, Step] = {"plain loop": _plain(size, device, script, images)}
    for precision in ("float32", "bfloat16"):
        found[precision] = _ours(size, device, precision, images, compiled=False)
    if compiled:
        found["bfloat16 compiled"] = _ours(size, device, "bfloat16", images, compiled=True)
    return found


def _networks(size: Size) -> tuple[nn.Module, nn.Module]:
    rng = torch.Generator().manual_seed(0)
    generator = ClassicGenerator(size.side, rng, latent_size=LATENT, width=size.width)
    return generator, ClassicDiscriminator(size.side, rng, width=size.width)


def _ours(size: Size, device: torch.device, precision: Precision, images: Tensor, *, compiled: bool) -> Step:
    generator, discriminator = (network.to(device) for network in _networks(size))
    settings = LesionStepSettings(
        objective="non_saturating", diff_augment=(), learning_rate_generator=RATE, learning_rate_discriminator=RATE,
        betas=BETAS, ema_decay=0.0, precision=precision,
    )  # fmt: skip
    if compiled:
        generator.compile()
        discriminator.compile()
    step = LesionGANStep(generator, discriminator, settings, torch.Generator(device).manual_seed(1))  # type: ignore[arg-type]
    classes = torch.zeros(size.batch, dtype=torch.long, device=device)
    return lambda: step.step(images, classes)


def _plain(size: Size, device: torch.device, script: Path | None, images: Tensor) -> Step:
    """The loop of the DCGAN example."""
    classes = torch.zeros(size.batch, dtype=torch.long, device=device)
    if script is None:
        own, judge = (network.to(device, memory_format=torch.contiguous_format) for network in _networks(size))

        def make(latent: Tensor) -> Tensor:
            result: Tensor = own(latent[:, :, 0, 0], classes)
            return result

        def score(shown: Tensor) -> Tensor:
            result: Tensor = torch.sigmoid(judge(shown, classes))
            return result
    else:
        theirs = networks_of(script, latent_size=LATENT, width=size.width, channels=1)
        own, judge = theirs.generator.to(device), theirs.discriminator.to(device)
        make, score = own, judge
    adam_g = torch.optim.Adam(own.parameters(), lr=RATE, betas=BETAS)
    adam_d = torch.optim.Adam(judge.parameters(), lr=RATE, betas=BETAS)

    def judged(shown: Tensor, label: float) -> Tensor:
        scores = score(shown)
        loss = F.binary_cross_entropy(scores, torch.full_like(scores, label))
        torch.autograd.backward(loss)
        return loss.detach()

    def step() -> object:
        judge.zero_grad()
        d_loss = judged(images, 1.0)
        fakes = make(torch.randn(size.batch, LATENT, 1, 1, device=device))
        d_loss = d_loss + judged(fakes.detach(), 0.0)
        adam_d.step()
        own.zero_grad()
        g_loss = judged(fakes, 1.0)
        adam_g.step()
        return d_loss.item(), g_loss.item()

    return step


def measure(steps: dict[str, Step], size: Size, device: torch.device) -> dict[str, list[float]]:
    """Seconds a step, one value a round, of every form in turn."""
    for step in steps.values():
        for _ in range(2):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(size.rounds):
        for name, step in steps.items():
            _finish(device)
            start = time.perf_counter()
            for _ in range(size.steps):
                step()
            _finish(device)
            seconds[name].append((time.perf_counter() - start) / size.steps)
    return seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def report(seconds: dict[str, list[float]], size: Size, device: torch.device) -> dict[str, Any]:
    """Medians, rates and how many times as fast as the plain loop each form is."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    plain = medians["plain loop"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "benchmark": "gpu",
        "command": " ".join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "device": f"{device.type}: {name}",
        "torch": torch.__version__,
        "size": vars(size),
        "seconds_a_step": seconds,
        "images_a_second": {name: size.batch / value for name, value in medians.items()},
        "times_the_plain_loop": {name: plain / value for name, value in medians.items()},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--script", type=Path, help="training script with classes Generator and Discriminator")
    parser.add_argument("--compile", action="store_true", help="measure compiled networks too")
    parser.add_argument("--tiny", action="store_true", help="a few images through small networks")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    if options.tiny and options.script is not None:
        parser.error("--tiny is for our own networks; scripts make images of 64 pixels")
    size, device = TINY if options.tiny else Size(), torch.device(options.device)
    seconds = measure(forms(size, device, options.script, options.compile), size, device)
    result = report(seconds, size, device)
    for name, times in result["times_the_plain_loop"].items():
        print(f"{name}: {result['images_a_second'][name]:.0f} images/s, {times:.2f} x plain loop")
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
