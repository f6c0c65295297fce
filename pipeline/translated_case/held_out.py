"""What held-out cases come to when they are translated: what later cases are held against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pipeline.domain_card import AnswerKind, Calibration, CaseFigures
from pipeline.generate_settings import GenerateMRToCTSettings
from pipeline.inference import WindowPlan
from pipeline.prepared_set import VolumeSet
from pipeline.translated_case.figures import case_figures
from pipeline.translated_case.maps import Networks, write_case_maps
from pipeline.translated_case.source import case_source

CALIBRATION_CASES = 4
"""Held-out cases that are translated at the most, evenly over all."""


def calibrated(
    volumes: VolumeSet,
    rows: Sequence[Mapping[str, Any]],
    networks: Networks,
    settings: GenerateMRToCTSettings,
    plan: WindowPlan,
    device: torch.device,
) -> Calibration | None:
    """Translate held-out cases and keep what they come to; None without any.

    Args:
        volumes: prepared set.
        rows: of held-out MR.
        networks: that translate.
        settings: planes, mirror image, residual.
        plan: windows.
        device: where the networks live.
    """
    if not rows:
        return None
    places = np.linspace(0, len(rows) - 1, min(CALIBRATION_CASES, len(rows))).round().astype(int)
    figures = [_figures(volumes, rows[place], networks, settings, plan, device) for place in places]
    kind = AnswerKind(models=len(networks.members), planes=settings.planes, mirrored=settings.mirrored)
    return Calibration.of(kind, figures, str(volumes.facts["unit"]))


def _figures(
    volumes: VolumeSet,
    row: Mapping[str, Any],
    networks: Networks,
    settings: GenerateMRToCTSettings,
    plan: WindowPlan,
    device: torch.device,
) -> CaseFigures:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scratch").mkdir()
        source = case_source(volumes, row)
        maps = write_case_maps(folder, "case", source, networks, settings, plan, device, lambda done: None)
        return case_figures(folder, maps, source)
