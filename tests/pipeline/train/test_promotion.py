import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import BaseModel

from pipeline.housekeeping import superseded
from pipeline.intensity import CT_MAP, to_int16
from pipeline.prepared_set import VolumeSetWriter, read_volume_set, write_image_set
from pipeline.promotions import PROMOTED_FILE, promoted_models
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.train import promotion
from pipeline.train.promotion import NotComparable, promote, score_lesions, score_translators
from pipeline.trained_models import (
    LESION_GENERATOR,
    MR_TO_CT,
    LesionGeneratorSettings,
    TranslatorSettings,
    build_lesion_generator,
    build_translator,
    save_model,
)
from pipeline.workspace import Workspace

NIGHTLY = RunSettings(promotion="no_worse", device="cpu")
TRANSLATOR = TranslatorSettings(generator="unet", width=8, slices=1, coordinates=False, patch_px=32)
LESIONS = LesionGeneratorSettings(
    family="dcgan", size_px=32, channels=1, classes=("bright", "dark"), latent_size=8, width=8
)


class Knobs(BaseModel):
    """What tells two trainings apart."""

    text: str


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "work")


def made(workspace, stage, text):
    """A finished output of a stage that holds a text; in a training the text is its score."""

    def body(context):
        (context.folder / "model").mkdir()
        (context.folder / "model" / "score").write_text(text, encoding="utf-8")
        return {}

    return run_stage(workspace, Stage(stage, "pipeline.files", body), Knobs(text=text), records={})


@pytest.fixture
def asked(monkeypatch):
    """Scores are read from the models; counts how often they are."""
    asked = Counter()

    def score(models, prepared, settings):
        asked["times"] += 1
        texts = [(model / "score").read_text() for model in models]
        if "other shape" in texts:
            raise NotComparable("the shape changed")
        return float(texts[0]), float(texts[1])

    monkeypatch.setitem(promotion.SCORES, "train_lesions", score)
    return asked


def night(workspace, score, settings=NIGHTLY):
    """One night: prepare, train to a score, promote; the score of the model in use."""
    prepared = made(workspace, "prepare_lesions", "data")
    chosen = promote(workspace, settings, "train_lesions", prepared, made(workspace, "train_lesions", score))
    (stored,) = promoted_models(workspace).values()
    assert stored.folder == chosen.folder
    return (chosen.path(workspace.root) / "model" / "score").read_text()


def test_a_worse_model_is_left_and_the_next_is_held_against_the_best(workspace, asked):
    assert [night(workspace, score) for score in ("0.5", "0.7", "0.6", "0.4", "0.4001")] == [
        "0.5", "0.5", "0.5", "0.4", "0.4",
    ]  # fmt: skip
    decisions = promoted_models(workspace)["train_lesions"].decisions
    assert [each.promoted for each in decisions] == [True, False, False, True, False]
    assert (decisions[2].score, decisions[2].last_score) == (0.6, 0.5)
    assert "last model kept" in decisions[2].sentence()
    assert "0.6, last 0.5" in decisions[2].sentence()


def test_a_run_done_again_decides_the_same_without_scoring_and_without_a_byte_changed(workspace, asked):
    night(workspace, "0.5")
    night(workspace, "0.7")
    before = (workspace.root / PROMOTED_FILE).read_bytes()
    assert [night(workspace, score) for score in ("0.7", "0.5", "0.7")] == ["0.5", "0.5", "0.5"]
    assert asked["times"] == 1
    assert (workspace.root / PROMOTED_FILE).read_bytes() == before


def test_an_equal_model_is_no_worse(workspace, asked):
    night(workspace, "0.5")
    assert night(workspace, "0.50") == "0.50"


def test_commands_take_every_model_and_what_cannot_be_compared_is_taken(workspace, asked):
    assert [night(workspace, score, RunSettings(device="cpu")) for score in ("0.5", "0.7")] == ["0.5", "0.7"]
    assert asked["times"] == 0
    assert night(workspace, "other shape") == "other shape"
    assert "the shape changed" in promoted_models(workspace)["train_lesions"].decisions[-1].why


def test_the_model_in_use_is_no_garbage_and_a_lost_one_is_replaced(workspace, asked):
    for score in ("0.5", "0.7", "0.8"):
        night(workspace, score)
    in_use = workspace.root / promoted_models(workspace)["train_lesions"].folder
    doomed = {removal.path for removal in superseded(workspace, {"train_lesions"})}
    assert in_use not in doomed
    assert len(doomed) == 1  # of three: the one in use and the newest stay
    (in_use / "model" / "score").write_text("damaged", encoding="utf-8")
    assert night(workspace, "0.9") == "0.9"


def translator(folder: Path, bias: float) -> tuple[Path, float]:
    """A translator that answers one value everywhere, and that value in HU."""
    network = build_translator(TRANSLATOR, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert last.bias is not None
        last.bias.fill_(bias)
        (answer,) = network.eval()(torch.rand(1, 1, 32, 32, generator=_rng(3))).unique().tolist()
    save_model(folder, TRANSLATOR, {MR_TO_CT: network}, {})
    return folder, float(CT_MAP.decode(np.float32(answer)))


def volumes(folder: Path, split: str) -> Path:
    """One pair: a body of 40 HU on a grid larger than a patch."""
    writer = VolumeSetWriter(folder)
    mask = np.zeros((4, 48, 48), np.uint8)
    mask[:, 8:40, 8:40] = 1
    ct = np.where(mask, 40, -1000).astype(np.int16)
    shared = {"subject_id": "s", "split": split, "pair_volume": -1, "affine": None, "mr_low": 0.0, "mr_high": 1.0}
    mr = to_int16(np.where(mask, 0.4, -1))
    first = writer.add(shared | {"modality": "MR", "series_id": "m", "own_grid": True}, mr, mask)
    writer.link(first, writer.add(shared | {"modality": "CT", "series_id": "c", "own_grid": False}, ct, mask))
    knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
    writer.close({"unit": "HU", "ct_map": knots, "spacing_mm": [2.0, 2.0, 4.0]})
    read_volume_set(folder)
    return folder


def test_translators_are_scored_by_their_error_in_hu(tmp_path):
    models, answers = zip(*(translator(tmp_path / str(bias), bias) for bias in (0.25, -0.3)), strict=True)
    expected = [abs(answer - 40) for answer in answers]
    assert abs(expected[0] - expected[1]) > 10
    prepared = volumes(tmp_path / "set", "validation")
    assert score_translators(list(models), prepared, NIGHTLY) == pytest.approx(expected, abs=0.01)
    assert score_translators(list(models[::-1]), prepared, NIGHTLY) == pytest.approx(expected[::-1], abs=0.01)


def test_without_validation_pairs_translators_are_not_compared(tmp_path):
    model, _ = translator(tmp_path / "model", 0.1)
    with pytest.raises(NotComparable, match="no registered pair"):
        score_translators([model, model], volumes(tmp_path / "set", "train"), NIGHTLY)


def lesion_model(folder: Path, seed: int, settings: LesionGeneratorSettings = LESIONS) -> Path:
    save_model(folder, settings, {LESION_GENERATOR: build_lesion_generator(settings, _rng(seed))}, {})
    return folder


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops(folder: Path, images: np.ndarray, split: str = "validation") -> Path:
    names = [f"i{number}" for number in range(len(images))]
    rows = pl.DataFrame(
        {
            "image": range(len(images)),
            **dict.fromkeys(("subject_id", "series_id", "lesion_id"), names),
            "slice_index": -1,
            "lesion_class": ["bright", "dark"] * (len(images) // 2),
            "split": split,
        }
    )
    write_image_set(
        folder,
        to_int16(images),
        rows,
        {"classes": ["bright", "dark"], "modality": "MR", "size_px": 32, "pixel_mm": 1.0},
    )
    return folder


def test_lesion_generators_are_scored_by_the_validation_crops(tmp_path):
    models = [lesion_model(tmp_path / str(seed), seed) for seed in (1, 2)]
    network = build_lesion_generator(LESIONS, _rng(1)).eval()
    with torch.no_grad():  # what the first model makes of other latents: no data are closer to it
        own = network(torch.randn(32, 8, generator=_rng(9)), torch.arange(32) % 2).numpy()
    prepared = crops(tmp_path / "set", own)
    first, second = score_lesions(models, prepared, NIGHTLY)
    assert first < second
    assert score_lesions(models, prepared, NIGHTLY) == (first, second)
    assert score_lesions(models[::-1], prepared, NIGHTLY) == (second, first)


def test_lesion_generators_of_other_classes_or_without_crops_are_not_compared(tmp_path):
    model = lesion_model(tmp_path / "model", 1)
    other = lesion_model(tmp_path / "other", 1, LESIONS.model_copy(update={"classes": ("bright", "pale")}))
    noise = np.random.default_rng(0).uniform(-1, 1, (8, 1, 32, 32))
    with pytest.raises(NotComparable, match="classes"):
        score_lesions([model, other], crops(tmp_path / "set", noise), NIGHTLY)
    with pytest.raises(NotComparable, match="0 validation crops"):
        score_lesions([model, model], crops(tmp_path / "none", noise, "train"), NIGHTLY)


def test_decisions_hold_hashes_and_figures_only(workspace, asked):
    night(workspace, "0.5")
    night(workspace, "0.7")
    stored = json.loads((workspace.root / PROMOTED_FILE).read_text())
    assert set(stored) == {"train_lesions"}
    assert all(set(each) <= {"model", "last", "prepared", "promoted", "measure", "score", "last_score", "why"}
               for each in stored["train_lesions"]["decisions"])  # fmt: skip
