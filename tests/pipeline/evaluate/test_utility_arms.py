"""The arm on the discriminator, subgroups and studies: what an evaluation makes of model and catalog."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import InputError
from pipeline.evaluate import utility
from pipeline.evaluate.image_origins import LESION_SIZE, read_origins
from pipeline.evaluate.leakage import audit_leakage
from pipeline.evaluate.stage import evaluate_lesions
from pipeline.evaluate.utility import ARMS, run_arms
from pipeline.evaluate.utility_scores import Utility, arm_interval
from pipeline.evaluate.utility_subgroups import subgroup_table
from pipeline.records import silent
from pipeline.results import read_results
from pipeline.settings import EvaluateLesionsSettings, RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.trained_models import load_backbone
from pipeline.workspace import Workspace

SETTINGS = EvaluateLesionsSettings(classifier_steps=2, seeds=2, bootstrap=100)


@pytest.fixture
def two_arms(monkeypatch):
    """The other arms have tests of their own, and take as long."""
    monkeypatch.setattr(utility, "ARMS", {name: ARMS[name] for name in ("real", "real_backbone")})


@pytest.fixture(scope="module")
def study(draws):
    sides = [draws.cohort((6, 6), seed, per_subject=2) for seed in (1, 2, 3)]
    return draws.study(train=sides[0], held_out=sides[1], synthetic=sides[2])


@pytest.mark.usefixtures("two_arms")
@pytest.mark.parametrize("arm", ["frozen", "fine_tuned"])
def test_a_discriminator_serves_as_backbone_of_one_more_arm(draws, study, tmp_path, arm):
    settings = SETTINGS.model_copy(update={"discriminator_arm": arm})
    folder = draws.model(tmp_path)
    before = {name: value.clone() for name, value in load_backbone(folder).state_dict().items()}
    first, second = (run_arms(study, settings, 5, silent, model=folder) for _ in range(2))
    assert list(first.probabilities)[-1] == "real_backbone"
    assert len(first.probabilities["real_backbone"]) == 2
    np.testing.assert_array_equal(first.probabilities["real_backbone"], second.probabilities["real_backbone"])
    np.testing.assert_allclose(np.sum(first.probabilities["real_backbone"], axis=2), 1, atol=1e-6)
    without = run_arms(study, settings, 5, silent)
    assert list(without.probabilities) == list(first.probabilities)[:-1]
    for name, seeds in without.probabilities.items():
        np.testing.assert_array_equal(seeds, first.probabilities[name], err_msg="the arm changes no other one")
    after = load_backbone(folder).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.usefixtures("two_arms")
def test_a_frozen_discriminator_learns_what_its_features_tell_apart(draws, tmp_path):
    """Bright and dark images: even an untrained discriminator's features know brightness."""
    images = draws.cohort((20, 20), 1)
    shift = 0.8 * (images.classes.float() - 0.5)[:, None, None, None]
    bright = replace(images, images=(0.3 * images.images + shift).clamp(-1, 1))
    study = draws.study(train=bright, held_out=bright, synthetic=bright)
    settings = SETTINGS.model_copy(update={"classifier_steps": 12})
    found = run_arms(study, settings, 1, silent, model=draws.model(tmp_path))
    assert arm_interval(found, "real_backbone", study, "macro_auc", settings, 0).value > 0.95


@pytest.mark.usefixtures("two_arms")
def test_a_discriminator_that_looks_at_class_and_batch_is_left_out_with_the_reason(draws, study, tmp_path):
    found = run_arms(study, SETTINGS, 5, silent, model=draws.model(tmp_path, family="dcgan_classic"))
    assert "real_backbone" not in found.probabilities
    assert "one image alone" in found.left_out["real_backbone"]
    off = run_arms(study, SETTINGS.model_copy(update={"discriminator_arm": "off"}), 5, silent, model=tmp_path)
    assert "real_backbone" not in {*off.probabilities, *off.left_out}


def known_set(draws, folder, columns):
    train, test = ([draws.images(name, 12, seed=seed) for name in draws.names] for seed in (2, 1))
    prepared = draws.prepared(folder / "prepared", train, test, subjects=8)
    return prepared, draws.catalog(folder / "catalog", prepared, columns)


def test_origins_follow_the_order_of_the_set_and_sizes_fall_into_thirds(draws, tmp_path):
    sequence = ["T1" if number % 3 else None for number in range(48)]
    prepared, catalog = known_set(draws, tmp_path, {"sequence": sequence})
    shuffled = pl.read_parquet(catalog / "series.parquet").sample(fraction=1, shuffle=True, seed=1)
    shuffled.write_parquet(catalog / "series.parquet")
    origins = read_origins(prepared, {"": catalog})
    assert origins["sequence"].to_list() == sequence
    sizes = origins[LESION_SIZE].to_list()
    assert [len({*sizes[start : start + 15]}) for start in (0, 17, 33)] == [1, 1, 1]
    assert [sizes.count(size) for size in dict.fromkeys(sizes)] == [16, 16, 16]
    assert sizes[0].startswith("below")


def test_a_study_on_both_sides_is_a_leak(draws, tmp_path):
    studies = [f"1.2.{number}" for number in range(48)]
    prepared, catalog = known_set(draws, tmp_path, {"study_uid": [*studies[:47], studies[0]]})
    audit = audit_leakage(prepared, 0, read_origins(prepared, {"": catalog})["study_uid"])
    assert audit.leaks == ("1 studies in train and test",)
    clean = audit_leakage(prepared, 0, pl.Series([*studies[:47], None]))
    assert clean.leaks == ()
    assert {row["kind"] for row in clean.rows} >= {"studies", "subjects"}
    assert "studies" not in {row["kind"] for row in audit_leakage(prepared, 0).rows}


def test_each_subgroup_is_scored_on_its_own_images(draws, tmp_path):
    """An arm that is right in one half of the images and guesses in the other."""
    half = ["MR" if number % 4 < 2 else "CT" for number in range(48)]
    sequence = ["T1" if number % 24 < 12 else "T2" for number in range(48)]
    columns = {"modality": half, "body_part": ["HEAD"] * 48, "sequence": sequence}
    prepared, catalog = known_set(draws, tmp_path, columns)
    origins = read_origins(prepared, {"": catalog})[prepared.rows("test")]
    test = draws.cohort((12, 12), 1, per_subject=3)
    study = draws.study(train=test, held_out=test, synthetic=test)
    truth, side = test.classes.numpy(), (origins["modality"] == "MR").to_numpy()
    right = np.where(side, truth, 0.5)
    good, guess = (np.stack([1 - p, p], axis=1) for p in (right, np.full(24, 0.5)))
    both = Utility({"real": [guess] * 2, "real_synthetic": [good] * 2}, [])
    settings = SETTINGS.model_copy(update={"subgroups": ("modality", "body_part", "sequence")})
    table = subgroup_table(both, study, origins, settings, 0, audit_leakage(prepared, 0))
    rows = {(row["attribute"], row["level"]): row for row in table.rows}
    assert set(rows) == {("modality", "MR"), ("modality", "CT")}, (
        "one body part is no subgroup, a sequence has one class"
    )
    mr, ct = rows["modality", "MR"], rows["modality", "CT"]
    assert (mr["synthetic"], mr["difference"], mr["images"]) == (1, 0.5, 12)
    assert (ct["synthetic"], ct["difference"], ct["images"]) == (0.5, 0, 12)
    assert mr["difference_low"] == 0.5
    assert "2 smaller ones" in table.caption
    with pytest.raises(InputError, match="share nothing"):
        subgroup_table(both, study, origins, SETTINGS, 0, None)


def test_the_stage_hands_model_and_catalog_on(draws, tmp_path):
    workspace = Workspace.open(tmp_path / "w", identity_key=bytes(32))
    train, test = ([draws.images(name, 8, seed=seed) for name in draws.names] for seed in (2, 1))
    made = np.concatenate([draws.images(name, 8, seed=3) for name in draws.names])
    names = [name for name in draws.names for _ in range(8)]
    prepared = draws.prepared(tmp_path / "prepared", train, test)
    studies = [f"1.2.{number}" for number in range(32)]

    def record(name, fill):
        def body(context):
            fill(context.folder)
            return {}

        return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), RunSettings(), records={})

    lesions = SETTINGS.model_copy(update={"classifier_steps": 1, "kid_subsets": 4, "neighbors": 2})
    found = evaluate_lesions(
        workspace,
        RunSettings.model_validate({"device": "cpu", "evaluate": {"lesions": lesions.model_dump()}}),
        record("prepare_lesions", lambda folder: draws.prepared(folder, train, test)),
        record("synthesize_lesions", lambda folder: draws.synthetic(folder, made, names)),
        catalog=record("ingest", lambda folder: draws.catalog(folder, prepared, {"study_uid": studies})),
        trained=record("train_lesions", lambda folder: draws.model(folder / "model")),
    )
    tables = {table.key: table.rows for table in read_results(found.path(workspace.root)).tables}
    assert [row["arm"] for row in tables["utility"]] == list(ARMS)
    assert "studies" in {row["kind"] for row in tables["leakage"]}
