"""Answers that disagree as those of no held-out case do: the case is refused, or stamped where the risk is accepted."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.domain_card import AnswerKind, Calibration, CaseFigures, Spread, read_domain_card
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.generate.stage import translate_mr_to_ct
from pipeline.prepared_set import read_volume_set
from pipeline.records import silent
from pipeline.settings import RunSettings, TrainMRToCTSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.trained_models import MR_TO_CT, TranslatorSettings, build_translator, save_model

SHAPE = (20, 24, 6)
AFFINE = np.diag([4.0, 4.0, 6.0, 1.0])
WHY = "phantom study, reviewed by M. Ade"
TRANSLATOR = TranslatorSettings(generator="unet", width=4, slices=1, coordinates=False, patch_px=32)
DEFAULT = AnswerKind(models=1, planes=("axial",), mirrored=True)


def body(seed):
    rng = np.random.default_rng(seed)
    i, j, _ = np.indices(SHAPE)
    distance = np.hypot((i - 9.5) / (8 + rng.normal() / 8), (j - 11.5) / (10 + rng.normal() / 8))
    values = np.where(distance < 0.7, 0.2, 0.6) + 0.02 * rng.normal(size=SHAPE)
    return np.where(distance < 1, values, -1), distance < 1


def known(logarithm, count=4, kind=DEFAULT):
    spread = Spread(count=count, mean=logarithm, deviation=0.1)
    return Calibration(kind=kind, unit="HU", logarithms={"uncertainty": spread})


@pytest.fixture
def cohort(world):
    for seed in range(5):
        values, mask = body(seed)
        world.add(f"train{seed}", values, AFFINE, SHAPE, AFFINE, mask=mask, split="train")
    values, mask = body(50)
    world.add("good", values, AFFINE, SHAPE, AFFINE, mask=mask)
    return world


def translate(world, held_out=None, others=(), **changes):
    records = world.records(scoped=True, held_out=held_out)
    settings = RunSettings.model_validate({"device": "cpu", "generate": {"mr_to_ct": {"dicom": False} | changes}})
    return translate_mr_to_ct(
        world.workspace, settings, records["catalog"], records["prepared"], records["trained"], others=others
    )


def uncertainty(world, record):
    checks = pl.read_parquet(record.path(world.workspace.root) / "checks.parquet")
    return checks.filter(pl.col("check") == "uncertainty").to_dicts()


def test_a_case_far_above_held_out_ones_is_refused_and_one_like_them_is_not(cohort):
    (fixed,) = uncertainty(cohort, translate(cohort))
    value = fixed["value"]
    assert "fixed" in fixed["rule"]
    (usual,) = uncertainty(cohort, translate(cohort, known(math.log(value))))
    assert (usual["light"], "4 held-out cases" in usual["rule"]) == ("green", True)
    with pytest.raises(InputError, match="kind that it was trained on") as caught:
        translate(cohort, known(math.log(value / 10)))
    assert f"mean uncertainty in the body: {value:.3g} HU, where at most" in caught.value.found


def test_what_is_refused_late_leaves_no_files_and_the_others_stay(cohort):
    """Two bodies whose answers do not disagree alike, and a limit between the two."""
    values, mask = body(51)
    cohort.add("other", values, AFFINE, SHAPE, AFFINE, mask=mask)
    found = {row["series_id"]: row["value"] for row in uncertainty(cohort, translate(cohort, accept_risk=WHY))}
    low, high = sorted(found, key=found.__getitem__)
    spread = Spread(count=10**9, mean=math.log(found[low] * found[high]) / 2, deviation=0.0)
    held_out = Calibration(kind=DEFAULT, unit="HU", logarithms={"uncertainty": spread})
    assert found[low] < held_out.limit("uncertainty", 5e-4) < found[high]
    record = translate(cohort, held_out)
    folder = record.path(cohort.workspace.root)
    assert pl.read_parquet(folder / "cases.parquet")["series_id"].to_list() == [low]
    (refused,) = pl.read_parquet(folder / "refused.parquet").to_dicts()
    assert refused["series_id"] == high
    assert "held-out cases" in refused["scope_findings"][-1]
    assert record.facts["refused"] == 1
    assert not [path for path in folder.rglob("*") if high.removeprefix("mr-") in path.name]


def test_an_accepted_risk_is_stamped(cohort):
    (fixed,) = uncertainty(cohort, translate(cohort))
    record = translate(cohort, known(math.log(fixed["value"] / 10)), accept_risk=WHY)
    (case,) = pl.read_parquet(record.path(cohort.workspace.root) / "cases.parquet").to_dicts()
    assert (case["scope"], case["accepted_risk"]) == ("out of scope", WHY)
    assert "uncertainty" in case["scope_findings"][0]
    assert record.facts["risk_accepted"] == 1
    (check,) = uncertainty(cohort, record)
    assert check["light"] == "red"


def test_other_ways_of_asking_are_held_against_validation_cases_asked_in_that_way(cohort):
    """Two models: the card knows one, so that the validation case is translated by both."""
    values, mask = body(60)
    cohort.add("held-out", values, AFFINE, SHAPE, AFFINE, mask=mask, split="validation")

    def other(context):
        network = build_translator(TRANSLATOR, torch.Generator().manual_seed(8))
        save_model(context.folder / "model", TRANSLATOR, {MR_TO_CT: network}, {})
        return {}

    second = run_stage(
        cohort.workspace, Stage("train_other", "pipeline.prepared_set", other), RunSettings(), records={}
    )
    record = translate(cohort, known(math.log(1e-3)), [second], splits=["test", "validation"])
    checks = uncertainty(cohort, record)
    value = next(row["value"] for row in checks if row["series_id"] == "mr-held-out")
    kind = AnswerKind(models=2, planes=("axial",), mirrored=True)
    limit = Calibration.of(kind, [CaseFigures(value, value, None, None, None)], "HU").limit("uncertainty", 5e-4)
    assert [row["rule"].split("red ")[1] for row in checks] == [f"above {limit:.3g} HU (from 1 held-out cases)"] * 2


def test_a_training_keeps_what_its_validation_cases_come_to(cohort, tmp_path):
    """As many answers as `translate` asks for by default, and the same figures as its checks."""
    values, mask = body(60)
    cohort.add("held-out", values, AFFINE, SHAPE, AFFINE, mask=mask, split="validation")
    ct = np.where(mask, 40 + 400 * (values > 0.4) + 10 * np.arange(6), -1000)
    cohort.add("ct", values, AFFINE, SHAPE, AFFINE, mask=mask, split="train", modality="CT", hu=ct)
    cohort.add("ct2", values, AFFINE, SHAPE, AFFINE, mask=mask, split="train", modality="CT", hu=ct[::-1])
    prepared = cohort.records()["prepared"]
    volumes = read_volume_set(prepared.path(cohort.workspace.root))
    settings = TrainMRToCTSettings(
        images=4, batch_size=2, width=4, discriminator_width=4, patch_px=32, alarms={"probe_images": 0}
    )

    def fill(context):
        train(MRToCTTraining(volumes, settings, 1, torch.device("cpu")), settings, context.folder, "w", silent)
        return {}

    trained = run_stage(
        cohort.workspace, Stage("train_mr_to_ct", "pipeline.train.stage", fill), RunSettings(), records={}
    )
    card = read_domain_card(read_json(trained.path(cohort.workspace.root) / "model" / "card.json"))
    assert card.held_out.kind == DEFAULT
    chosen = {"dicom": False, "splits": ["validation"], "accept_risk": WHY}
    run = RunSettings.model_validate({"device": "cpu", "generate": {"mr_to_ct": chosen}})
    record = translate_mr_to_ct(cohort.workspace, run, cohort.records()["catalog"], prepared, trained)
    checks = pl.read_parquet(record.path(cohort.workspace.root) / "checks.parquet").to_dicts()
    for name, check in (("uncertainty", "uncertainty"), ("residual", "cycle residual")):
        (found,) = [row for row in checks if row["check"] == check]
        assert math.exp(card.held_out.logarithms[name].mean) == pytest.approx(found["value"], abs=1e-4)
        assert "(from 1 held-out cases)" in found["rule"]
