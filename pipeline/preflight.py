"""What a run will need, before it begins: disk, memory, rough time; a run that cannot fit is refused.

Needs are estimates, stated as such. Disk follows from the size of the input and from the networks' parameters; memory
and arithmetic come from the networks themselves, built narrow and passed one image without storage (torch's meta
device); time is arithmetic over the speed of a short convolution measured on the device at hand.
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.mr_to_ct.discriminator import PatchDiscriminator
from models.mr_to_ct.generator import ResNetGenerator, UNetGenerator
from models.mr_to_ct.volumetric import VolumePatchDiscriminator, VolumeUNetGenerator
from pipeline.device import available_memory_bytes, choose_device
from pipeline.errors import InputError, ResourceError
from pipeline.settings import RunSettings, TrainMRToCTSettings

_MB = 1_000_000
_EXPANSION = {".gz": 4.0, ".png": 3.0, ".jpg": 12.0, ".jpeg": 12.0, ".npz": 3.0}
"""How much a file grows when its voxels are stored plainly; other files are taken to be uncompressed."""
_INGEST_COPIES = 1.2
_PREPARED_COPIES = 2.5
"""MR, CT on the MR's grid and on its own, masks, after resampling to a finer grid."""
_PROCESS_BYTES = 1_200 * _MB
"""Python with torch and the imaging libraries, two parsing processes and the embedded Prefect server."""
_VOLUME_COPIES = 12
"""Float copies of the largest volume that correction, resampling and masks hold at once."""
_STATE_COPIES = 9
"""Weights, gradients' moments (Adam keeps two) and the moving average, in two checkpoint generations and the model."""
_OUTPUT_BYTES = 60 * _MB
"""Ledger, logs, grids, report, Prefect's database."""
_ACTIVATION_COPIES = 2.5
"""A layer's output is kept for the backward pass, beside its normalization's statistics and a gradient."""
_TRAINING_EFFICIENCY = 0.35
"""Share of a plain convolution's speed that a whole training step reaches."""
_PROBED_WIDTH = 16
"""Networks are built no wider than this to count their work, so that settings of any size are sized up in moments."""
_OTHER_STEPS_SECONDS_PER_MB = 0.5
_OTHER_STEPS_SECONDS = 60.0


@dataclass(frozen=True)
class Survey:
    """Size of an input folder.

    Attributes:
        files: regular files, links not followed.
        bytes: their size.
        expanded_bytes: estimated size of their voxels stored plainly.
        largest_bytes: the largest folder of files (a DICOM series) or single file, expanded.
    """

    files: int
    bytes: int
    expanded_bytes: int
    largest_bytes: int


@dataclass(frozen=True)
class Need:
    """One resource: what the run is estimated to need, and what there is. Bytes."""

    resource: str
    need: int
    have: int
    change: str

    @property
    def met(self) -> bool:
        """Whether it fits."""
        return self.need <= self.have


@dataclass(frozen=True)
class Preflight:
    """Estimates of one run.

    Attributes:
        device: where networks are trained.
        needs: disk and memory.
        seconds: rough time by step, for a run that finds nothing done.
    """

    device: str
    needs: tuple[Need, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class TrainingCost:
    """What one training image costs.

    Attributes:
        operations: floating-point operations of a training step, for each image.
        activation_bytes: memory held for the backward pass, for each image of a batch.
        parameters: of all networks together.
    """

    operations: float
    activation_bytes: float
    parameters: int


def check_input(input_folder: Path, workspace_root: Path) -> None:
    """Refuse an input that cannot be one, before anything is written.

    Raises:
        InputError: it does not exist, cannot be read, is empty, or lies inside the workspace or around it.
    """
    change = "Give the folder that holds your DICOM series, NIfTI files or images with --input."
    allowed = "a readable folder of scans, or one .npz file"
    if not input_folder.exists():
        raise InputError("The input must exist.", found=f"nothing at {input_folder}", allowed=allowed, change=change)
    if not (input_folder.is_dir() or input_folder.suffix == ".npz"):
        raise InputError("The input must be a folder.", found="a single file", allowed=allowed, change=change)
    if not os.access(input_folder, os.R_OK):
        raise InputError("The input must be readable.", found="no permission", allowed=allowed, change=change)
    source, target = input_folder.resolve(), workspace_root.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InputError(
            "Input and workspace must lie apart, for a run writes to the workspace and reads all of the input.",
            found="one inside the other",
            allowed="two folders of which neither contains the other",
            change="Give another --workspace, for example one beside the input folder.",
        )
    if next(_files(input_folder), None) is None:
        raise InputError("The input must hold scans.", found="no file at all", allowed=allowed, change=change)


def survey(input_folder: Path) -> Survey:
    """Size up an input folder from names and sizes alone."""
    files = total = 0
    expanded: dict[str, float] = {}
    for path, size in _files(input_folder):
        files, total = files + 1, total + size
        compressed = Path(path).suffix.lower() in _EXPANSION
        unit = path if compressed or path.endswith(".nii") else os.path.dirname(path)
        expanded[unit] = expanded.get(unit, 0) + size * _EXPANSION.get(Path(path).suffix.lower(), 1.0)
    return Survey(files, total, round(sum(expanded.values())), round(max(expanded.values(), default=0)))


def estimate(settings: RunSettings, found: Survey, workspace_root: Path) -> Preflight:
    """Estimate what a run needs and what this machine has.

    Args:
        settings: the run.
        found: size of its input.
        workspace_root: where it writes; what lies there already counts as done.

    Raises:
        ResourceError: the settings name a device that this machine lacks.
    """
    device = choose_device(settings.device)
    costs = {track: _COSTS[track](settings) for track in settings.tracks}
    state = sum(4 * cost.parameters * _STATE_COPIES for cost in costs.values())
    disk = found.expanded_bytes * (_INGEST_COPIES + _PREPARED_COPIES) + state + _OUTPUT_BYTES
    disk = max(0.0, disk - sum(size for _, size in _files(workspace_root)))
    volumes = found.largest_bytes * _VOLUME_COPIES
    training = max(_training_bytes(settings, track, cost) for track, cost in costs.items())
    on_host = max(volumes, training) if device.type == "cpu" else volumes
    needs = [
        Need("disk", round(disk), shutil.disk_usage(_existing(workspace_root)).free, _DISK_ADVICE),
        Need("memory", round(_PROCESS_BYTES + on_host), available_memory_bytes(), _MEMORY_ADVICE),
    ]
    if device.type == "cuda":
        needs.append(Need("GPU memory", round(training), torch.cuda.mem_get_info(device)[0], _MEMORY_ADVICE))
    speed = convolution_speed(device) * _TRAINING_EFFICIENCY
    seconds = {f"train_{track}": _images(settings, track) * cost.operations / speed for track, cost in costs.items()}
    seconds["other steps"] = _OTHER_STEPS_SECONDS + _OTHER_STEPS_SECONDS_PER_MB * found.expanded_bytes / _MB
    return Preflight(device.type, tuple(needs), seconds)


def require(preflight: Preflight) -> None:
    """Refuse a run that cannot fit.

    Raises:
        ResourceError: naming the resource, what is needed and what there is.
    """
    for need in preflight.needs:
        if not need.met:
            raise ResourceError(
                f"A run must fit into the machine's {need.resource}.",
                found=f"about {need.need / _MB:,.0f} MB needed, {need.have / _MB:,.0f} MB free",
                allowed=f"at most {need.have / _MB:,.0f} MB",
                change=need.change,
            )


def lesion_cost(settings: RunSettings) -> TrainingCost:
    """Cost of a training image of the conditional DCGAN: 4 generator and 9 discriminator passes.

    A step makes images once without and once with gradients, and judges real and fake images, then fake ones again;
    a backward pass costs two forward passes.
    """
    train, size, rng = settings.train.lesions, settings.prepare.lesions.size_px, torch.Generator()
    width = min(train.width, _PROBED_WIDTH)
    generator = DCGANGenerator(size, rng, num_classes=2, latent_size=train.latent_size, width=width)
    discriminator = DCGANDiscriminator(size, rng, num_classes=2, width=width)
    classes = torch.zeros(1, dtype=torch.long, device="meta")
    latent, image = torch.empty(1, train.latent_size, device="meta"), torch.empty(1, 1, size, size, device="meta")
    made = _Pass.of(generator, latent, classes).widened(train.width / width)
    judged = _Pass.of(discriminator, image, classes).widened(train.width / width)
    return TrainingCost(
        4 * made.operations + 9 * judged.operations,
        _ACTIVATION_COPIES * (made.output_bytes + 2 * judged.output_bytes),
        made.parameters + judged.parameters,
    )


def mr_to_ct_cost(settings: RunSettings) -> TrainingCost:
    """Cost of a training image of the translation: two generators, each with translation, cycle and identity passes.

    Paired training needs the one direction only.
    """
    train = settings.train.mr_to_ct
    context = 3 if train.coordinates else 0
    width, judge_width = min(train.width, _PROBED_WIDTH), min(train.discriminator_width, _PROBED_WIDTH)
    generator, discriminator = _translation_networks(train, context, width, judge_width)
    given = torch.empty(1, train.slices + context, train.patch_px, train.patch_px, device="meta")
    made = _Pass.of(generator, given).widened(train.width / width)
    judged = _Pass.of(discriminator, given[:, : train.slices]).widened(train.discriminator_width / judge_width)
    directions = 1 if train.supervision == "paired" else 2
    passes = 1 if train.supervision == "paired" else 3
    return TrainingCost(
        directions * (3 * passes * made.operations + 9 * judged.operations),
        _ACTIVATION_COPIES * directions * (passes * made.output_bytes + 2 * judged.output_bytes),
        directions * (made.parameters + judged.parameters),
    )


def _translation_networks(
    train: TrainMRToCTSettings, context: int, width: int, judge_width: int
) -> tuple[nn.Module, nn.Module]:
    rng = torch.Generator()
    if train.dimensions == 3:
        volume = VolumeUNetGenerator(train.slices, context, rng, width=width)
        return volume, VolumePatchDiscriminator(train.slices, rng, width=judge_width)
    network = UNetGenerator if train.generator == "unet" else ResNetGenerator
    generator = network(train.slices + context, train.slices, rng, width=width)
    return generator, PatchDiscriminator(train.slices, rng, width=judge_width)


def convolution_speed(device: torch.device, repeats: int = 4) -> float:
    """Floating-point operations a second of a 3×3 convolution, forward, in single precision; takes some 50 ms."""
    images, weights = torch.zeros(4, 32, 64, 64, device=device), torch.zeros(32, 32, 3, 3, device=device)
    torch.nn.functional.conv2d(images, weights, padding=1)
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        torch.nn.functional.conv2d(images, weights, padding=1)
    _wait(device)
    operations = repeats * 2 * images.numel() * weights[0].numel()
    return operations / max(time.perf_counter() - began, 1e-6)


_COSTS = {"lesions": lesion_cost, "mr_to_ct": mr_to_ct_cost}
_DISK_ADVICE = "Free space, give a --workspace on another disk, or give fewer scans."
_MEMORY_ADVICE = "Lower train.*.batch_size, patch_px or width with --set, or run on a larger machine."


@dataclass(frozen=True)
class _Pass:
    """What one image's way through a network takes."""

    operations: float
    output_bytes: float
    parameters: int

    @classmethod
    def of(cls, network: nn.Module, *inputs: Tensor) -> "_Pass":
        sizes: list[int] = []

        def note(module: nn.Module, given: object, output: object) -> None:
            if isinstance(output, Tensor) and not list(module.children()):
                sizes.append(output.numel() * 4)

        for module in network.to("meta").eval().modules():
            module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter:
            network(*inputs)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return cls(float(counter.get_total_flops()), float(sum(sizes)), parameters)

    def widened(self, factor: float) -> "_Pass":
        """The same network with all widths times ``factor``: maps grow with it, weights and work with its square."""
        return _Pass(self.operations * factor**2, self.output_bytes * factor, round(self.parameters * factor**2))


def _training_bytes(settings: RunSettings, track: str, cost: TrainingCost) -> float:
    batch = settings.train.lesions.batch_size if track == "lesions" else settings.train.mr_to_ct.batch_size
    return batch * cost.activation_bytes + 5 * 4 * cost.parameters


def _images(settings: RunSettings, track: str) -> int:
    return settings.train.lesions.images if track == "lesions" else settings.train.mr_to_ct.images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _existing(path: Path) -> Path:
    """The nearest folder that exists."""
    path = path.resolve()
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Regular files and their sizes below a folder, or the one file; links are not followed."""
    if folder.is_file():
        yield str(folder), folder.stat().st_size
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path, os.lstat(path).st_size
