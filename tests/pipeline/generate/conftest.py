"""A workspace with a hand-made catalog, prepared set and model, and a translator that changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.catalog import write_catalog
from pipeline.domain_card import SCOPE_KEY, Calibration, domain_card
from pipeline.files import sha256_json
from pipeline.intensity import CT_MAP, GREY_MAP, to_int16
from pipeline.prepared_set import VolumeSetWriter, read_volume_set, to_slices
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.trained_models import MR_TO_CT, TranslatorSettings, build_translator, save_model
from pipeline.workspace import Workspace

TRANSLATOR = TranslatorSettings(generator="unet", width=4, slices=1, coordinates=False, patch_px=32)


class World:
    """Collects MR cases; `records` writes what translation reads."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace.open(root, identity_key=bytes(32))
        self.series: list[dict[str, Any]] = []
        self.volumes: list[tuple[dict[str, Any], np.ndarray, np.ndarray]] = []

    def add(
        self,
        name: str,
        units: np.ndarray,
        prepared_affine: np.ndarray | None,
        native_shape: tuple[int, ...],
        native_affine: np.ndarray | None,
        *,
        mask: np.ndarray | None = None,
        split: str = "test",
        hu: np.ndarray | None = None,
        **changes: Any,
    ) -> None:
        """One MR: canonical ``units`` (i, j, k) on the prepared grid; shape and affine of the scan it came from.

        With ``hu`` its prepared volume is a CT of these.
        """

        def flat(affine: np.ndarray | None) -> list[float] | None:
            return None if affine is None else np.asarray(affine, float).ravel().tolist()

        row = dict.fromkeys(
            ("body_part", "sequence", "volume_label", "study_date", "tilt_degrees", "spacing_mm", "study_uid",
             "series_uid", "frame_of_reference_uid",
             "sop_instance_uids", "patient_position", "pair_key", "published_split")
        )  # fmt: skip
        self.series.append(
            row
            | {
                "flags": [],
                "series_id": f"mr-{name}", "subject_id": f"sub-{name}", "subject_source": "patient_id",
                "kind": "volume", "source": "dicom", "modality": "MR", "unit": "signal", "shape": list(native_shape),
                "affine": flat(native_affine), "path": f"volumes/{name}.nii", "stack_index": -1, "slice_index": -1,
                "content_sha256": name,
            }
            | changes
        )  # fmt: skip
        inside = np.ones(units.shape, np.uint8) if mask is None else mask.astype(np.uint8)
        prepared = {
            "modality": "MR", "subject_id": f"sub-{name}", "series_id": f"mr-{name}", "split": split,
            "pair_volume": -1, "own_grid": True, "affine": flat(prepared_affine), "mr_low": 0.0, "mr_high": 1.0,
        }  # fmt: skip
        stored = to_int16(units) if hu is None else hu.astype(np.int16)
        prepared |= {} if hu is None else {"modality": "CT"}
        self.volumes.append((prepared, to_slices(stored), to_slices(inside)))

    def records(
        self,
        unit: str = "HU",
        translator: TranslatorSettings = TRANSLATOR,
        *,
        scoped: bool = False,
        held_out: Calibration | None = None,
    ) -> dict[str, StageRecord]:
        """Records of ingest, prepare and train; a scoped model carries the domain card of the training split."""
        prepared = self._record("prepare_mr_to_ct", lambda folder: self._write_set(folder, unit), len(self.volumes))
        card: dict[str, Any] = {"purpose": "test"}
        if scoped:
            own = domain_card(read_volume_set(prepared.path(self.workspace.root)))
            own = own.model_copy(update={"held_out": held_out})
            card[SCOPE_KEY] = own.model_dump(mode="json")
        return {
            "catalog": self._record("ingest", self._write_catalog, len(self.series)),
            "prepared": prepared,
            "trained": self._record("train_mr_to_ct", lambda folder: _write_model(folder, translator, card), card),
        }

    def _write_catalog(self, folder: Path) -> None:
        write_catalog(folder, self.series, [], [])

    def _write_set(self, folder: Path, unit: str) -> None:
        knots = CT_MAP if unit == "HU" else GREY_MAP
        with VolumeSetWriter(folder) as writer:
            for row, voxels, mask in self.volumes:
                writer.add(row, voxels, mask)
            ct_map = {"knots_hu": list(knots.knots_hu), "knots_unit": list(knots.knots_unit)}
            writer.close({"unit": unit, "ct_map": ct_map, "spacing_mm": None})

    def _record(self, name: str, fill: Any, told: Any = None) -> StageRecord:
        def body(context: Any) -> dict[str, Any]:
            fill(context.folder)
            return {}

        stage, hashes = Stage(name, "pipeline.prepared_set", body), {"told": sha256_json(told)}
        return run_stage(self.workspace, stage, RunSettings(), records={}, hashes=hashes)


def _write_model(folder: Path, settings: TranslatorSettings, card: dict[str, Any]) -> None:
    network = build_translator(settings, torch.Generator().manual_seed(3))
    save_model(folder / "model", settings, {MR_TO_CT: network}, card)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "workspace")


@pytest.fixture
def identity_translator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translation hands the MR units on, so that what is written is known voxel by voxel."""
    monkeypatch.setattr(
        "pipeline.generate.translators.load_translator", lambda folder, device: (lambda x: x, TRANSLATOR)
    )
