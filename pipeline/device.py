"""Choice of the compute device and of the number of CPU threads."""

import os

import torch

from pipeline.device_turn import DeviceTurn
from pipeline.errors import ResourceError
from pipeline.settings import DeviceChoice


def choose_device(choice: DeviceChoice) -> torch.device:
    """Turn the ``device`` setting into a torch device; ``auto`` takes CUDA, then MPS, then CPU.

    Raises:
        ResourceError: a device was named that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return torch.device(next(name for name, present in available.items() if present))
    if not available[choice]:
        raise ResourceError(
            "The device named in the settings must exist on this machine.",
            found=f"device: {choice}",
            allowed=", ".join(["auto", *(name for name, present in available.items() if present)]),
            change="Set `device: auto`, or run on a machine that has the device.",
        )
    return torch.device(choice)


def turn_on(device: torch.device, turns: str) -> DeviceTurn | None:
    """Whose turn to wait for before computing on a device; None where nobody waits.

    A GPU is known by its UUID, so that processes that number devices otherwise (``CUDA_VISIBLE_DEVICES``) agree.

    Args:
        device: as chosen; without an index it is the first visible one.
        turns: the setting ``device_turns``.
    """
    if turns == "off" or (turns == "auto" and device.type == "cpu"):
        return None
    if turns != "auto":
        return DeviceTurn(turns, turns)
    if device.type != "cuda":
        return DeviceTurn(device.type, device.type)
    index = device.index or 0
    physical = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    if physical is None:  # builds for other makers' GPUs tell none
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        physical = visible[index].strip() if index < len(visible) and visible[index].strip() else index
    return DeviceTurn(f"cuda-{physical}", f"cuda:{index}")


def describe_device(device: torch.device) -> str:
    """Name of the device for records, e.g. ``cuda: NVIDIA H100`` or ``cpu: 2 threads``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {torch.get_num_threads()} threads"


def available_memory_bytes() -> int:
    """Physical memory that is free for a new process, in bytes (Linux; elsewhere the total)."""
    page = os.sysconf("SC_PAGE_SIZE")
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    meminfo = "/proc/meminfo"
    if os.path.exists(meminfo):
        with open(meminfo, encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return page * os.sysconf(name)
