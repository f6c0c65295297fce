"""The maps of one case on the prepared grid, as int16 files that are written slice by slice.

- pseudo-CT: mean of all answers in HU or grey levels, air outside the body.
- uncertainty: their standard deviation, in HU or grey levels; none where there is a single answer.
- cycle residual: |MR − MR′| where MR′ is the pseudo-CT translated back, in thousandths of an MR unit, so that the range
  of an MR, -1 to 1, is 2000; none where the model has no way back. It is small where the network keeps what it saw.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.generate_settings import GenerateMRToCTSettings
from pipeline.inference import Member, VolumeMaps, WindowPlan, pictures_of, release_pages, translate_volume
from pipeline.translated_case.source import AIR, CaseSource

RESIDUAL_STEPS = 1000
"""Steps of the cycle residual in an MR unit."""

_MOST = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Networks:
    """What translates.

    Attributes:
        members: from MR to CT.
        back: from CT to MR; None where there is none.
    """

    members: tuple[Member, ...]
    back: Member | None


@dataclass(frozen=True)
class CaseMaps:
    """Paths of the arrays (K, H, W), relative to the stage's folder."""

    pseudo_ct: str
    uncertainty: str | None
    cycle_residual: str | None


def pictures_of_case(shape: tuple[int, ...], settings: GenerateMRToCTSettings, *, back: bool) -> int:
    """Pictures that are translated for a case, for the progress."""
    return pictures_of(shape, settings.planes) + (shape[0] if back and settings.cycle_residual else 0)


def write_case_maps(
    folder: Path,
    name: str,
    source: CaseSource,
    networks: Networks,
    settings: GenerateMRToCTSettings,
    plan: WindowPlan,
    device: torch.device,
    on_picture: Callable[[int], None],
) -> CaseMaps:
    """Translate a case.

    Args:
        folder: of the stage; ``prepared/`` and ``scratch/`` lie in it, and the latter is removed.
        name: of the case.
        source: the MR.
        networks: that translate.
        settings: planes, mirror image, residual.
        plan: windows.
        device: where the networks live.
        on_picture: told the pictures done, of `pictures_of_case`.
    """
    scratch = folder / "scratch"
    (folder / "prepared").mkdir(exist_ok=True)
    maps = translate_volume(
        source.volume,
        networks.members,
        plan,
        source.ct_map.decode,
        device,
        scratch,
        planes=settings.planes,
        mirrored=settings.mirrored,
        on_picture=on_picture,
    )
    paths = {kind: f"prepared/{name}{ending}.npy" for kind, ending in _ENDINGS.items()}
    pseudo_ct = _store(folder / paths["pseudo_ct"], source, lambda k: maps.mean[k], AIR[source.unit])
    several = maps.answers > 1
    if several:
        _store(folder / paths["uncertainty"], source, maps.deviation, 0)
    residual = None
    if networks.back is not None and settings.cycle_residual:
        residual = paths["cycle_residual"]
        done = pictures_of(source.volume.stored.shape, settings.planes)
        returned = translate_volume(
            source.back(pseudo_ct),
            [networks.back],
            plan,
            lambda units: units,
            device,
            scratch,
            on_picture=lambda k: on_picture(done + k),
        )
        _write_residual(folder / residual, source, returned)
    shutil.rmtree(scratch)
    return CaseMaps(paths["pseudo_ct"], paths["uncertainty"] if several else None, residual)


_ENDINGS = {"pseudo_ct": "", "uncertainty": "-uncertainty", "cycle_residual": "-cycle-residual"}


def _write_residual(path: Path, source: CaseSource, back: VolumeMaps) -> None:
    mr = source.volume

    def residual(index: int) -> npt.NDArray[np.float32]:
        return np.asarray(RESIDUAL_STEPS * np.abs(mr.encode(mr.stored[index]) - back.mean[index]), dtype=np.float32)

    _store(path, source, residual, 0)


def _store(
    path: Path, source: CaseSource, value: Callable[[int], npt.NDArray[np.float32]], outside: int
) -> npt.NDArray[np.int16]:
    """Write a map, ``outside`` where no answer is wanted."""
    near = source.volume.near
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=near.shape)
    for index in range(len(near)):
        stored[index] = np.where(near[index], np.clip(np.rint(value(index)), -_MOST, _MOST), outside)
    stored.flush()
    release_pages(stored)
    return stored
