import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.leakage import audit_leakage, leakage_verdict
from pipeline.evaluate.lesions import evaluate_cohort
from pipeline.evaluate.stage import evaluate_lesions
from pipeline.evaluate.utility import ARMS
from pipeline.prepared_set import read_image_set, write_image_set
from pipeline.records import silent
from pipeline.results import read_results, write_results
from pipeline.settings import EvaluateLesionsSettings, RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

SETTINGS = EvaluateLesionsSettings(classifier_steps=14, seeds=2, kid_subsets=10, neighbors=3, bootstrap=300)
TINY = SETTINGS.model_copy(update={"classifier_steps": 2, "neighbors": 5, "bootstrap": 100})


def outcome(prepared, cohort, folder, settings=SETTINGS, **known):
    results = evaluate_cohort(prepared, cohort, settings, 5, folder, silent, **known)
    write_results(folder, results)
    return SimpleNamespace(
        results=read_results(folder),
        headlines={headline.key: headline for headline in results.headlines},
        verdicts={verdict.key: verdict for verdict in results.verdicts},
        tables={table.key: list(table.rows) for table in results.tables},
        captions={table.key: table.caption for table in results.tables},
        gate=json.loads((folder / "gate.json").read_text()),
        flagged=pl.read_parquet(folder / "flagged.parquet"),
    )


@pytest.fixture(scope="module")
def test_images(draws):
    return [draws.images(name, 40, seed=1) for name in draws.names]


@pytest.fixture(scope="module")
def benefit(draws, test_images, tmp_path_factory):
    """A class starved to two odd images, and a cohort of fresh draws of both classes; three planted copies."""
    folder = tmp_path_factory.mktemp("benefit")
    train = [draws.images("flat", 40, seed=2), draws.images("steep | odd", 2, seed=2, angle=0.6)]
    prepared = draws.prepared(folder / "prepared", train, test_images, subjects=20)
    fresh = [draws.images(name, 60, seed=3) for name in draws.names]
    images = np.concatenate(fresh)
    images[7] = train[0][11]
    images[8] = train[0][12][:, :, ::-1]
    images[70] = np.roll(train[1][1], 1, axis=2)
    cohort = draws.synthetic(folder / "cohort", images, [name for name in draws.names for _ in range(60)])
    (folder / "out").mkdir()
    return outcome(prepared, cohort, folder / "out")


@pytest.fixture(scope="module")
def harm(draws, test_images, tmp_path_factory):
    """Enough real images, and a cohort whose classes are drawn by lot."""
    folder = tmp_path_factory.mktemp("harm")
    train = [draws.images(name, 40, seed=2) for name in draws.names]
    prepared = draws.prepared(folder / "prepared", train, test_images, subjects=20)
    images = np.concatenate([draws.images(name, 80, seed=3) for name in draws.names])
    classes = np.random.default_rng(0).permutation([name for name in draws.names for _ in range(80)])
    cohort = draws.synthetic(folder / "cohort", images, classes.tolist())
    (folder / "out").mkdir()
    return outcome(prepared, cohort, folder / "out")


def arms(found):
    return {row["arm"]: row for row in found.tables["utility"]}


def test_fresh_images_of_a_starved_class_are_found_to_help(benefit):
    assert benefit.verdicts["utility"].outcome == "good"
    gain = benefit.headlines["auc_difference"]
    assert gain.value > 0.05
    assert arms(benefit)["real_synthetic"]["auc_difference_low"] > 0
    assert "helps" in benefit.verdicts["utility"].sentence


def test_repeating_real_images_does_not_explain_the_help(benefit):
    rows = arms(benefit)
    assert rows["real_synthetic"]["macro_auc"] > rows["real_duplicated"]["macro_auc"] + 0.03
    assert set(rows) == set(ARMS) - {"real_backbone"}, "no model is at hand"
    assert not any("discriminator" in warning for warning in benefit.results.warnings)


def test_images_of_wrong_classes_are_found_to_harm(harm):
    assert harm.verdicts["utility"].outcome == "bad"
    assert harm.headlines["auc_difference"].value < -0.05
    assert arms(harm)["real_synthetic"]["auc_difference_high"] < 0


def test_differences_are_differences_of_the_scores_shown(harm):
    rows = arms(harm)
    for arm, row in rows.items():
        if arm != "real":
            assert row["auc_difference"] == pytest.approx(row["macro_auc"] - rows["real"]["macro_auc"], abs=1e-9)
            assert row["auc_difference_low"] <= row["auc_difference"] <= row["auc_difference_high"]
    assert "auc_difference" not in rows["real"]


def test_class_agreement_is_at_chance_for_shuffled_classes_and_high_for_real_ones(benefit, harm):
    shuffled = harm.headlines["class_agreement"]
    assert shuffled.value == pytest.approx(0.5, abs=0.12)
    assert shuffled.reference == 0.5
    agreement = {row["images"]: row for row in harm.tables["class_agreement"]}
    assert agreement["held-out real"]["overall"] > 0.75
    assert agreement["synthetic"]["overall"] == shuffled.value
    assert {"class_0", "class_1"} <= agreement["synthetic"].keys()


def test_class_names_head_their_columns_whatever_characters_they_hold(harm, draws):
    table = next(table for table in harm.results.tables if table.key == "class_agreement")
    titles = [column.title for column in table.columns if column.key.startswith("class_")]
    assert titles == list(draws.names)


def test_planted_copies_are_flagged_with_the_image_they_copy(benefit):
    found = {row["image"]: row["nearest_image"] for row in benefit.flagged.to_dicts()}
    assert found == {7: 11, 8: 12, 70: 41}  # 40 images of the first class come before the second
    classes = dict(zip(benefit.flagged["image"], benefit.flagged["lesion_class"], strict=True))
    assert classes == {7: "flat", 8: "flat", 70: "steep | odd"}
    assert benefit.flagged["correlation"].min() > 0.95
    assert benefit.headlines["memorized"].value == 3 == benefit.gate["flags"]


def test_flagged_images_take_no_part_in_the_other_scores(benefit):
    fidelity = benefit.tables["fidelity"]
    counts = {row["images"] for row in fidelity if row["comparison"] == "synthetic" and row["lesion_class"] == "flat"}
    assert counts == {58}


def test_a_clean_cohort_passes_and_is_told_so(harm):
    assert harm.gate["flags"] == 0
    assert not harm.gate["blocked"]
    assert harm.verdicts["release_gate"].outcome == "good"
    assert harm.flagged.height == 0


def test_fidelity_stands_between_floor_and_ceiling(harm):
    rows = {
        (row["extractor"], row["comparison"]): row
        for row in harm.tables["fidelity"]
        if row["lesion_class"] == "all classes"
    }
    extractors = {key[0] for key in rows}
    assert len(extractors) == 2
    for name in extractors:
        kid = {side: rows[name, side]["kid"] for side in ("floor", "synthetic", "ceiling")}
        assert kid["floor"] < kid["ceiling"]
        assert kid["synthetic"] < kid["ceiling"], "fresh draws look real, whatever they are called"


def records_of(draws, workspace, train, test, images, classes, subjects=None):
    def record(name, fill):
        def body(context):
            fill(context.folder)
            return {}

        return run_stage(workspace, Stage(name, "pipeline.prepared_set", body), RunSettings(), records={})

    prepared = record("prepare_lesions", lambda folder: draws.prepared(folder, train, test, subjects=subjects))
    return prepared, record("synthesize_lesions", lambda folder: draws.synthetic(folder, images, classes))


def run_small(draws, root, *, per_class=6, subjects=None, copies=False, classes=None):
    workspace = Workspace.open(root, identity_key=bytes(32))
    train = [draws.images(name, per_class, seed=2) for name in draws.names]
    test = [draws.images(name, per_class, seed=1) for name in draws.names]
    images = np.concatenate(train if copies else [draws.images(name, per_class, seed=3) for name in draws.names])
    names = classes or [name for name in draws.names for _ in range(per_class)]
    prepared, cohort = records_of(draws, workspace, train, test, images, names, subjects)
    settings = RunSettings.model_validate({"evaluate": {"lesions": TINY.model_dump()}})
    record = evaluate_lesions(workspace, settings, prepared, cohort)
    return record, record.path(workspace.root)


@pytest.fixture(scope="module")
def small(draws, tmp_path_factory):
    """Record and folder of an evaluation of six images a class."""
    return run_small(draws, tmp_path_factory.mktemp("small") / "w")


def test_the_same_evaluation_gives_the_same_bytes(draws, small, tmp_path):
    first, folder = small
    again, other = run_small(draws, tmp_path / "two")
    assert (folder / "results.json").read_bytes() == (other / "results.json").read_bytes()
    assert first.content_sha256 == again.content_sha256
    assert first.facts["verdicts"] == {"utility": "neutral", "release_gate": "bad", "leakage": "good"}


def test_fewer_than_twenty_held_out_images_cannot_calibrate_the_gate(small):
    _, folder = small
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["blocked"]
    assert gate["threshold"] is None
    assert "12 held-out images that are no training images, at least 20" in gate["reason"]


def test_two_images_a_class_and_one_test_subject_give_blanks_and_no_crash(draws, tmp_path):
    _, folder = run_small(draws, tmp_path / "w", per_class=2, subjects=1)
    results = read_results(folder)
    tables = {table.key: table.rows for table in results.tables}
    assert {row["kid"] for row in tables["fidelity"]} == {None}
    assert {row["macro_auc_low"] for row in tables["utility"]} == {None}
    assert all(0 <= row["macro_auc"] <= 1 for row in tables["utility"])
    verdict = next(verdict for verdict in results.verdicts if verdict.key == "utility")
    assert verdict.outcome == "neutral"
    assert "cannot be judged" in verdict.sentence
    assert any("Fewer than 30 test images" in warning for warning in results.warnings)


def test_a_cohort_of_copies_alone_is_blocked_and_leaves_blanks(draws, tmp_path):
    record, folder = run_small(draws, tmp_path / "w", per_class=12, copies=True)
    results = read_results(folder)
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["blocked"]
    assert gate["flags"] == 24
    assert record.facts["headlines"]["class_agreement"] is None
    assert record.facts["headlines"]["auc_difference"] is None
    tables = {table.key: table.rows for table in results.tables}
    assert [row["arm"] for row in tables["utility"]] == ["real", "real_classical"]
    assert pl.read_parquet(folder / "flagged.parquet")["nearest_image"].to_list() == list(range(24))


def test_a_cohort_without_one_class_lacks_the_arm_that_needs_it(draws, tmp_path):
    _, folder = run_small(draws, tmp_path / "w", classes=[draws.names[0]] * 12)
    results = read_results(folder)
    tables = {table.key: table.rows for table in results.tables}
    assert "synthetic_only" not in {row["arm"] for row in tables["utility"]}
    assert any("synthetic only" in warning for warning in results.warnings)
    synthetic = next(row for row in tables["class_agreement"] if row["images"] == "synthetic")
    assert synthetic["class_1"] is None


def test_sensitivity_and_specificity_are_given_by_class_and_threshold(benefit):
    rows = benefit.tables["utility_by_class"]
    assert {row["threshold"] for row in rows} == {"most probable", "P ≥ 0.5"}
    both = {(row["arm"], row["lesion_class"]): row for row in rows if row["threshold"] == "most probable"}
    flat, steep = (both["real", name] for name in ("flat", "steep | odd"))
    assert flat["sensitivity"] == pytest.approx(steep["specificity"]), "of two classes one is the other's complement"
    assert flat["auc"] == pytest.approx(steep["auc"])
    mean = (flat["sensitivity"] + steep["sensitivity"]) / 2
    assert arms(benefit)["real"]["balanced_accuracy"] == pytest.approx(mean)


def test_privacy_measures_stand_beside_what_honest_images_give(harm):
    rows = {(row["measure"], row["space"]): row for row in harm.tables["privacy"]}
    auc = [row for (measure, _), row in rows.items() if measure == "membership inference, AUC"]
    assert len(auc) == 2
    assert all(row["value_low"] <= 0.5 <= row["value_high"] for row in auc), "fresh draws give nobody away"
    share = next(row for (measure, _), row in rows.items() if measure == "authentic share")
    assert abs(share["value"] - share["expected"]) < 0.2


def leaking(draws, folder, plant):
    """An image set whose training and test images share something."""
    train = [draws.images(name, 15, seed=2) for name in draws.names]
    test = [draws.images(name, 15, seed=1) for name in draws.names]
    if plant == "identical":
        test[0][3] = train[0][5]
    if plant == "mirrored":
        test[0][3] = np.clip(train[0][5][:, :, ::-1] * 0.9 + 0.02, -1, 1)
    prepared = draws.prepared(folder / "prepared", train, test)
    if plant == "subject":
        names = prepared.table["subject_id"].to_list()
        names[40] = names[0]
        prepared = dataclasses.replace(prepared, table=prepared.table.with_columns(subject_id=pl.Series(names)))
    return prepared


def judged(draws, folder, prepared):
    images = np.concatenate([draws.images(name, 15, seed=3) for name in draws.names])
    cohort = draws.synthetic(folder / "cohort", images, [name for name in draws.names for _ in range(15)])
    (folder / "out").mkdir()
    return outcome(prepared, cohort, folder / "out", TINY)


PLANTS = {"identical": "1 identical images", "mirrored": "1 nearly equal images", "subject": "1 subjects"}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_leak_is_found(draws, tmp_path, plant):
    audit = audit_leakage(leaking(draws, tmp_path, plant), 5)
    assert audit.leaks == (f"{PLANTS[plant]} in train and test",)
    assert leakage_verdict(audit).outcome == "bad"


@pytest.mark.parametrize(
    "plant",
    ["subject", pytest.param("identical", marks=pytest.mark.slow), pytest.param("mirrored", marks=pytest.mark.slow)],
)
def test_a_planted_leak_is_shouted_and_no_use_is_judged(draws, tmp_path, plant):
    found = judged(draws, tmp_path, leaking(draws, tmp_path, plant))
    assert "utility" not in found.tables
    assert "utility_by_class" not in found.tables
    assert found.headlines["auc_difference"].value is None
    assert found.verdicts["utility"].outcome == found.verdicts["leakage"].outcome == "bad"
    assert f"{PLANTS[plant]} in train and test" in found.verdicts["leakage"].sentence
    assert found.results.warnings[0].startswith("LEAKAGE")


def test_clean_splits_are_said_to_be_and_every_kind_is_counted(harm):
    assert harm.verdicts["leakage"].outcome == "good"
    rows = harm.tables["leakage"]
    assert {row["shared"] for row in rows} == {0}
    assert len(rows) == 3 * 5, "three pairs of splits, five kinds"
    assert "utility" in harm.tables


def test_the_learning_curve_has_a_point_for_every_share_and_ratio(draws, tmp_path):
    train, test = ([draws.images(name, 20, seed=seed) for name in draws.names] for seed in (2, 1))
    prepared = draws.prepared(tmp_path / "prepared", train, test, subjects=10)
    images = np.concatenate([draws.images(name, 30, seed=3) for name in draws.names])
    cohort = draws.synthetic(tmp_path / "cohort", images, [name for name in draws.names for _ in range(30)])
    (tmp_path / "out").mkdir()
    settings = TINY.model_copy(
        update={"learning_real_shares": (0.5, 1.0), "learning_synthetic_ratios": (0.0, 1.0, 9.0)}
    )
    found = outcome(prepared, cohort, tmp_path / "out", settings)
    rows = found.tables["learning_curve"]
    assert "50 % of the subjects with 9 : 1, 100 % of the subjects with 9 : 1" in found.captions["learning_curve"]
    assert [(row["real"], row["synthetic"]) for row in rows] == [(20, 0), (20, 20), (40, 0), (40, 40)]
    assert all(row["macro_auc_low"] <= row["macro_auc"] <= row["macro_auc_high"] for row in rows)


def test_of_one_class_images_are_judged_and_use_for_a_classifier_is_not(draws, test_images, tmp_path):
    both = draws.prepared(tmp_path / "both", [draws.images(name, 30, seed=2) for name in draws.names], test_images)
    table = both.table.filter(pl.col("lesion_class") == "flat")
    pixels = np.asarray(both.images[table["image"].to_list()])
    table = table.with_columns(image=pl.int_range(pl.len()))
    write_image_set(tmp_path / "one", pixels, table, {"classes": ["flat"]})
    images = draws.images("flat", 30, seed=3)
    images[4] = draws.images("flat", 30, seed=2)[9]
    cohort = draws.synthetic(tmp_path / "cohort", images, ["flat"] * 30)
    (tmp_path / "out").mkdir()
    found = outcome(read_image_set(tmp_path / "one"), cohort, tmp_path / "out", TINY)
    assert found.headlines.keys() == {"memorized"}
    assert found.verdicts.keys() == {"release_gate", "leakage"}
    assert "There is one class" in " ".join(found.results.warnings)
    rows = {row["comparison"]: row["kid"] for row in found.tables["fidelity"] if row["lesion_class"] == "all classes"}
    assert rows["synthetic"] < rows["ceiling"]
    assert found.flagged["image"].to_list() == [4]
    assert found.headlines["memorized"].value == 1
