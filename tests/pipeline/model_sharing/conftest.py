"""Small trained models of both tracks with their evaluations, as the stages leave them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from models.lesion_gan.discriminator import DCGANDiscriminator
from pipeline.files import write_json
from pipeline.model_sharing import outgoing
from pipeline.model_sharing.outgoing import export_lesion_model, export_mr_to_ct_model
from pipeline.prepared_set import VolumeSetWriter, write_image_set
from pipeline.records import StageRecord
from pipeline.results import Headline, Results, Verdict, write_results
from pipeline.settings import RunSettings
from pipeline.settings_loading import validate
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.trained_models import (
    DISCRIMINATOR,
    LESION_GENERATOR,
    MR_TO_CT,
    LesionGeneratorSettings,
    TranslatorSettings,
    build_lesion_generator,
    build_translator,
    save_model,
)
from pipeline.workspace import Workspace

LESIONS = LesionGeneratorSettings(
    family="dcgan", size_px=32, channels=1, classes=("cyst", "ring (left)"), latent_size=8, width=4
)
TRANSLATOR = TranslatorSettings(generator="unet", width=4, slices=1, coordinates=True, patch_px=32)
CT_MAP = {"knots_hu": [-1024, 0, 3071], "knots_unit": [-1.0, 0.0, 1.0]}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", identity_key=bytes(32))


def shaken(network: nn.Module) -> nn.Module:
    """The network with every weight and buffer changed, so that one that is forgotten shows."""
    rng = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) * 0.1)
    return network.eval()


def settings_of(form: str = "torch_export", **changes: Any) -> RunSettings:
    return validate({"share": {"format": form, "license": "CC-BY-NC-4.0"}, **changes}, "a test")


def _results(track: Any) -> Results:
    figure = Headline(key="figure", text="A figure", value=0.75, reference=0.5, reference_text="chance")
    verdict = Verdict(key="use", outcome="neutral", sentence="No difference shown: 0.01 in [-0.02, 0.04].", rule="r")
    return Results(track=track, headlines=(figure,), verdicts=(verdict,), tables=(), warnings=("Few subjects.",))


class _StageSettings(BaseModel):
    """What a training leaves as its settings, of both tracks."""

    lesions: dict[str, int] = {"width": 4}
    mr_to_ct: dict[str, int] = {"width": 4}


class Made:
    """Makes records of stages with given content."""

    generator, translator = LESIONS, TRANSLATOR
    settings = staticmethod(settings_of)

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.mark = workspace, ""

    def write_mark(self, folder: Path) -> None:
        """Stands for what a model made: it differs between models."""
        (folder / "made.txt").write_text(self.mark)

    def record(
        self,
        name: str,
        fill: Callable[[Path], None],
        inputs: dict[str, StageRecord] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> StageRecord:
        def body(context: StageContext) -> dict[str, Any]:
            fill(context.folder)
            return facts or {}

        stage = Stage(name, "pipeline.prepared_set", body)
        return run_stage(self.workspace, stage, _StageSettings(), records=inputs or {}, hashes={"model": self.mark})

    def lesions(self, *, blocked: bool = False, model: LesionGeneratorSettings = LESIONS) -> list[StageRecord]:
        """Records of prepare, train, synthesize and evaluate, as `export_lesion_model` takes them."""
        self.mark = f"{model} {blocked}"
        facts = {"classes": list(model.classes), "size_px": 32, "pixel_mm": 1.0, "modality": "MR", "channels": 1}
        facts |= {"counts": {"train": dict.fromkeys(model.classes, 3)}, "subjects": {"train": 6}}
        table = pl.DataFrame(
            {
                "image": [0], "subject_id": ["sub-secret"], "series_id": ["ser-secret"], "lesion_id": ["les-secret"],
                "lesion_class": [model.classes[0]], "split": ["train"], "slice_index": [0],
            }
        )  # fmt: skip
        images = np.zeros((1, 1, 32, 32), np.int16)
        prepared = self.record(
            "prepare_lesions", lambda folder: write_image_set(folder, images, table, facts), {}, facts
        )

        def train(folder: Path) -> None:
            rng = torch.Generator().manual_seed(3)
            networks = {LESION_GENERATOR: shaken(build_lesion_generator(model, rng))}
            if model.family == "dcgan":
                levels = model.attribute_levels
                judge = DCGANDiscriminator(
                    32, rng, num_classes=len(model.classes), width=model.width, attribute_levels=levels
                )
                networks[DISCRIMINATOR] = shaken(judge)
            save_model(folder / "model", model, networks, {"purpose": "test", "images_shown": 64})

        trained = self.record("train_lesions", train, {"prepared": prepared})
        cohort = self.record("synthesize_lesions", self.write_mark, {"prepared": prepared, "trained": trained})

        def evaluate(folder: Path) -> None:
            write_results(folder, _results("lesions"))
            write_json(folder / "gate.json", {"blocked": blocked, "reason": "9 of 10 images are copies"})
            pl.DataFrame({"image": pl.Series([], dtype=pl.Int64)}).write_parquet(folder / "flagged.parquet")

        evaluated = self.record("evaluate_lesions", evaluate, {"prepared": prepared, "cohort": cohort})
        return [prepared, trained, cohort, evaluated]

    def mr_to_ct(self, model: TranslatorSettings = TRANSLATOR) -> list[StageRecord]:
        """Records of prepare, train, translate and evaluate, as `export_mr_to_ct_model` takes them."""
        self.mark = str(model)
        facts = {"unit": "HU", "ct_map": CT_MAP, "spacing_mm": [1.0, 1.0, 3.0]}

        def prepare(folder: Path) -> None:
            with VolumeSetWriter(folder) as writer:
                writer.close(facts)

        prepared = self.record("prepare_mr_to_ct", prepare, {}, facts)

        def train(folder: Path) -> None:
            network = shaken(build_translator(model, torch.Generator().manual_seed(3)))
            save_model(folder / "model", model, {MR_TO_CT: network}, {"purpose": "test", "images_shown": 64})

        trained = self.record("train_mr_to_ct", train, {"prepared": prepared})
        pseudo_ct = self.record("translate_mr_to_ct", self.write_mark, {"trained": trained})
        evaluated = self.record(
            "evaluate_mr_to_ct", lambda folder: write_results(folder, _results("mr_to_ct")), {"pseudo_ct": pseudo_ct}
        )
        return [prepared, trained, pseudo_ct, evaluated]


@pytest.fixture
def made(workspace: Workspace) -> Made:
    return Made(workspace)


@pytest.fixture
def without_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the program out, which takes seconds to write, where the rest of the folder is looked at."""
    monkeypatch.setattr(outgoing, "_write_program", lambda *_: 0.0)


def shared_model(made: Made, track: str, form: str) -> Path:
    """Folder of a shared model of a track in a format."""
    record = (
        export_lesion_model(made.workspace, settings_of(form), *made.lesions())
        if track == "lesions"
        else export_mr_to_ct_model(made.workspace, settings_of(form), *made.mr_to_ct())
    )
    return record.path(made.workspace.root) / "shared"


@pytest.fixture(scope="session")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folder of a shared model with its program, each made once; not to be changed."""
    made = Made(Workspace.open(tmp_path_factory.mktemp("shared") / "workspace", identity_key=bytes(32)))
    return cache(lambda track, form: shared_model(made, track, form))


@pytest.fixture
def shared(made: Made, without_program: None) -> Callable[..., Path]:
    """Folder of a shared model, without its program."""
    return lambda track="lesions", form="torch_export": shared_model(made, track, form)
