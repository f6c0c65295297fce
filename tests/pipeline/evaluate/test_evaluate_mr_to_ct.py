import nibabel as nib
import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.mr_to_ct import evaluate_translation
from pipeline.evaluate.mr_to_ct_cases import evaluation_mask, fit_baselines, score, scoring_for
from pipeline.evaluate.stage import evaluate_mr_to_ct
from pipeline.intensity import CT_MAP, GREY_MAP, to_int16
from pipeline.metrics.ssim import ssim
from pipeline.prepared_set import VolumeSetWriter, read_volume_set
from pipeline.records import silent
from pipeline.results import read_results, write_results
from pipeline.settings import EvaluateMRToCTSettings, RunSettings
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

SETTINGS = EvaluateMRToCTSettings(mask_dilation_px=2, bootstrap=100)
SHAPE = (4, 48, 44)


def anatomy(seed=0):
    """Body, bone and air pockets at places that differ from seed to seed: CT in HU (K, H, W) and body mask."""
    rng = np.random.default_rng(seed)
    _, rows, columns = np.indices(SHAPE)
    center = 23 + rng.uniform(-2, 2, 2)
    body = ((rows - center[0]) / 20) ** 2 + ((columns - center[1] + 2) / 17) ** 2 < 1
    ct = np.where(body, 40 + rng.integers(-20, 20, SHAPE), -1000)
    for hu, place in ((900, (-8, -5)), (-600, (7, 4))):
        ct[np.hypot(rows - center[0] - place[0], columns - center[1] - place[1]) < 5] = hu
    ct[:, 12:16, 30:34] = 700  # off the plane of symmetry
    return np.where(body, ct, -1000).astype(np.int16), body.astype(np.uint8)


def mr_of(ct):
    """MR units that tell tissues apart as a lookup can: bone and air dark alike, soft tissue bright."""
    return np.where(ct > 250, -0.8, np.where(ct < -200, -0.9, 0.3)) + 0.001 * (ct % 7)


class Case:
    """Volumes of a set and what a translation made of its test MR."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []

    def add(self, name, split, ct, mask, *, mr=None, paired=True, pseudo_ct=None, ct_mask=None):
        self.rows.append((name, split, ct, mask, mr_of(ct) if mr is None else mr, paired, pseudo_ct, ct_mask))

    def write(self, unit="HU", spacing=(1.0, 1.0, 3.0)):
        knots = CT_MAP if unit == "HU" else GREY_MAP
        cases = []
        (self.folder / "out" / "prepared").mkdir(parents=True)
        with VolumeSetWriter(self.folder / "set") as writer:
            for name, split, ct, mask, mr, paired, pseudo_ct, ct_mask in self.rows:
                row = {"subject_id": name, "split": split, "pair_volume": -1, "affine": None}
                row |= {"mr_low": 0.0, "mr_high": 1.0}
                first = writer.add(
                    row | {"modality": "MR", "series_id": f"mr-{name}", "own_grid": True}, to_int16(mr), mask
                )
                if paired:
                    outline = mask if ct_mask is None else ct_mask
                    second = {"modality": "CT", "series_id": f"ct-{name}", "own_grid": False}
                    writer.link(first, writer.add(row | second, ct, outline))
                if pseudo_ct is not None:
                    path = f"prepared/mr-{name}-{first}.npy"
                    np.save(self.folder / "out" / path, pseudo_ct.astype(np.int16))
                    cases.append(
                        {"series_id": f"mr-{name}", "subject_id": name, "split": split, "volume": first,
                         "prepared_path": path, "dicom_refusal": None}
                    )  # fmt: skip
            ct_map = {"knots_hu": list(knots.knots_hu), "knots_unit": list(knots.knots_unit)}
            writer.close({"unit": unit, "ct_map": ct_map, "spacing_mm": list(spacing) if unit == "HU" else None})
        schema = dict.fromkeys(("series_id", "subject_id", "split", "prepared_path", "dicom_refusal"), pl.String)
        pl.DataFrame(cases, schema=schema | {"volume": pl.Int64}).write_parquet(self.folder / "out" / "cases.parquet")
        return read_volume_set(self.folder / "set")

    def evaluate(self, unit="HU", settings=SETTINGS):
        results = evaluate_translation(self.write(unit), self.folder / "out", settings, 0, silent)
        (self.folder / "evaluated").mkdir()
        write_results(self.folder / "evaluated", results)  # refuses numbers that are not finite
        return read_results(self.folder / "evaluated")


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def table(results, key):
    return next(found for found in results.tables if found.key == key)


def summary(results):
    return {row["method"]: row for row in table(results, "mr_to_ct_summary").rows}


def add_training(case, subjects=2):
    for number in range(subjects):
        case.add(f"t{number}", "train", *anatomy(10 + number))


def test_a_perfect_pseudo_ct_has_no_error_full_overlap_and_no_infinity(case):
    add_training(case)
    for number in range(2):
        ct, mask = anatomy(number)
        case.add(f"s{number}", "test", ct, mask, pseudo_ct=ct)
    results = case.evaluate()
    row = summary(results)["pseudo_ct"]
    assert (row["mae"], row["mae_low"], row["mae_high"], row["mean_error"]) == (0, 0, 0, 0)
    assert row["psnr"] is None
    assert row["ms_ssim"] == pytest.approx(1)
    assert (row["mae_bone"], row["mae_soft_tissue"], row["mae_air"], row["dice_bone"]) == (0, 0, 0, 1)
    assert results.verdicts[0].outcome == "good"


def test_the_lookup_beats_the_constant_and_both_are_headlines(case):
    add_training(case, 3)
    ct, mask = anatomy(0)
    case.add("s0", "test", ct, mask, pseudo_ct=np.full_like(ct, 40))
    results = case.evaluate()
    rows = summary(results)
    assert rows["intensity_lookup"]["mae"] < 0.8 * rows["mean_ct"]["mae"]
    lookup, constant = results.headlines
    assert lookup.reference == rows["intensity_lookup"]["mae"]
    assert constant.reference == rows["mean_ct"]["mae"]
    assert lookup.value == constant.value == rows["pseudo_ct"]["mae"]
    assert results.verdicts[0].outcome == "bad", "soft tissue everywhere is no better than the lookup"


def test_a_flipped_pseudo_ct_scores_worse(case, tmp_path):
    ct, mask = anatomy(0)
    noisy = ct + np.random.default_rng(1).integers(-30, 30, ct.shape)
    case.add("right", "test", ct, mask, pseudo_ct=noisy)
    case.add("wrong", "test", ct, mask, pseudo_ct=noisy[:, :, ::-1])
    results = case.evaluate()
    rows = {row["subject_id"]: row for row in table(results, "mr_to_ct_cases").rows}
    assert rows["wrong"]["mae"] > 3 * rows["right"]["mae"]
    assert rows["wrong"]["psnr"] < rows["right"]["psnr"] - 5
    assert rows["wrong"]["ms_ssim"] < rows["right"]["ms_ssim"]
    assert rows["wrong"]["dice_bone"] < 0.7 < rows["right"]["dice_bone"]
    assert rows["wrong"]["hd95_bone"] > rows["right"]["hd95_bone"]
    assert rows["wrong"]["wepl_mean_abs"] > 3 * rows["right"]["wepl_mean_abs"]
    places = {row["subject_id"]: row for row in table(results, "mr_to_ct_geometry").rows}
    assert places["right"]["agrees"]
    assert places["wrong"]["finding"] == "fits the CT better with its columns reversed"
    assert next(verdict for verdict in results.verdicts if verdict.key == "geometry").outcome == "bad"


def test_errors_are_told_apart_by_tissue(case):
    ct, mask = anatomy(0)
    off = np.where(ct > 250, ct + 100, np.where(ct < -200, ct - 10, ct + 7))
    case.add("s0", "test", ct, mask, pseudo_ct=off)
    row = summary(case.evaluate())["pseudo_ct"]
    assert (row["mae_bone"], row["mae_soft_tissue"], row["mae_air"]) == (100, 7, 10)


def test_scores_are_taken_inside_the_dilated_outline_of_the_ct_alone(case):
    ct, mask = anatomy(0)
    inside = mask > 0
    wrong = ct.copy()
    wrong[:, :2, :2] = 3000  # far from the body
    case.add("far", "test", ct, mask, pseudo_ct=wrong)
    near = ct.copy()
    row, column = 24, int(np.flatnonzero(inside[0, 24])[-1]) + 2  # two pixels beyond the skin
    near[0, row, column] += 500
    case.add("near", "test", ct, mask, pseudo_ct=near)
    rows = {row["subject_id"]: row for row in table(case.evaluate(), "mr_to_ct_cases").rows}
    assert rows["far"]["mae"] == 0
    assert rows["near"]["mae"] == pytest.approx(500 / rows["near"]["voxels"])


def test_slices_without_body_stay_out_of_the_mask(case):
    ct, mask = anatomy(0)
    cut = mask.copy()
    cut[2:] = 0
    case.add("s0", "test", ct, mask, ct_mask=cut)
    volumes = case.write()
    found = evaluation_mask(volumes, volumes.row(1), 2)
    assert not found[2:].any()
    rows, columns = np.indices(SHAPE[1:])
    body = np.argwhere(cut[0])
    distance = np.sqrt(((np.stack([rows, columns], -1)[:, :, None] - body) ** 2).sum(-1)).min(-1)
    assert np.array_equal(found[0], distance <= 2)
    assert np.array_equal(evaluation_mask(volumes, volumes.row(1), 0), cut > 0)


def test_a_ct_without_body_in_view_is_reported_and_left_out(case):
    ct, mask = anatomy(0)
    case.add("s0", "test", ct, mask, pseudo_ct=ct)
    case.add("s1", "test", np.full_like(ct, -1024), mask, mr=mr_of(ct), pseudo_ct=ct, ct_mask=np.zeros_like(mask))
    results = case.evaluate()
    assert any("1 translated MR with no body in the CT" in warning for warning in results.warnings)
    assert {row["subject_id"] for row in table(results, "mr_to_ct_cases").rows} == {"s0"}


def test_an_mr_without_ct_is_reported_and_left_out(case):
    add_training(case)
    ct, mask = anatomy(0)
    case.add("s0", "test", ct, mask, pseudo_ct=ct)
    case.add("s1", "test", ct, mask, pseudo_ct=ct, paired=False)
    results = case.evaluate()
    assert "Not scored: 1 translated MR with no registered CT." in results.warnings
    assert {row["subject_id"] for row in table(results, "mr_to_ct_cases").rows} == {"s0"}


def test_without_any_pair_there_are_warnings_and_no_tables(case):
    ct, mask = anatomy(0)
    case.add("s0", "test", ct, mask, pseudo_ct=ct, paired=False)
    results = case.evaluate()
    assert (results.tables, results.headlines, results.verdicts) == ((), (), ())
    assert any("need a registered CT" in warning for warning in results.warnings)


def test_without_training_pairs_there_is_no_baseline_and_no_judgment(case):
    ct, mask = anatomy(0)
    case.add("t0", "train", ct, mask, paired=False)
    case.add("s0", "test", ct, mask, pseudo_ct=ct + 10)
    results = case.evaluate()
    assert set(summary(results)) == {"pseudo_ct"}
    assert results.verdicts[0].outcome == "neutral"
    assert [headline.reference for headline in results.headlines] == [None, None]


def test_baselines_learn_from_training_pairs_alone(case):
    ct, mask = anatomy(0)
    case.add("t0", "train", np.full_like(ct, 77), mask, mr=np.zeros(SHAPE))
    case.add("v0", "validation", np.full_like(ct, -500), mask, mr=np.zeros(SHAPE))
    case.add("s0", "test", ct, mask, pseudo_ct=ct)
    baselines = fit_baselines(case.write())
    assert baselines.constant.hu == 77
    assert np.all(baselines.lookup.hu == 77)


def test_one_subject_gives_values_without_intervals_and_few_subjects_a_warning(case):
    ct, mask = anatomy(0)
    case.add("s0", "test", ct, mask, pseudo_ct=ct + 10)
    results = case.evaluate()
    row = summary(results)["pseudo_ct"]
    assert row["mae"] == 10
    assert "mae_low" not in row
    assert any("Fewer than five scored subjects" in warning for warning in results.warnings)


def test_intervals_count_subjects_not_cases(case):
    ct, mask = anatomy(0)
    for number in range(4):
        case.add("same", "test", ct, mask, pseudo_ct=ct + 10)
        case.add(f"s{number}", "test", ct, mask, pseudo_ct=ct + 20)
    row = summary(case.evaluate())["pseudo_ct"]
    assert row["cases"] == 8
    assert row["mae"] == 15
    assert row["mae_low"] < 15 < row["mae_high"] <= 20


def test_grey_pictures_are_scored_in_grey_levels_whatever_the_dialect(case):
    rng = np.random.default_rng(0)
    _, mask = anatomy(0)
    grey = np.where(mask, rng.integers(20, 240, SHAPE), 0).astype(np.int16)
    grey[:, 20:24, 20:24] = 255
    for name, split, made in (("t0", "train", None), ("s0", "test", np.clip(grey + 5, 0, 255))):
        case.add(name, split, grey, mask, mr=grey / 255 - 0.5, pseudo_ct=made)
    results = case.evaluate(unit="grey")
    row = summary(results)["pseudo_ct"]
    volumes = read_volume_set(case.folder / "set")
    inside = evaluation_mask(volumes, volumes.row(3), 2)
    difference = np.clip(grey + 5, 0, 255) - grey
    assert row["mae"] == pytest.approx(difference[inside].mean())
    expected = 10 * np.log10(255**2 / (difference[inside].astype(float) ** 2).mean())
    assert row["psnr"] == pytest.approx(expected)
    columns = {column.key: column for column in table(results, "mr_to_ct_summary").columns}
    assert "mae_bone" not in columns
    assert columns["mae"].unit == "grey"
    assert "grey8" in columns["psnr"].definition
    assert scoring_for({"unit": "grey", "spacing_mm": None}, SETTINGS).value_range.high == 255
    assert row["dice_bone"] == pytest.approx(2 * 64 / (64 + 64 + ((grey + 5 >= 250) & (grey < 250)).sum()))


def test_spacing_is_given_slice_first():
    assert scoring_for({"unit": "HU", "spacing_mm": [1.0, 2.0, 3.0]}, SETTINGS).spacing_mm == (3.0, 2.0, 1.0)


def test_the_same_evaluation_gives_the_same_bytes(case, tmp_path):
    add_training(case)
    for number in range(3):
        ct, mask = anatomy(number)
        case.add(f"s{number}", "test", ct, mask, pseudo_ct=ct + 3 * number)
    case.write()
    contents = []
    for name in ("one", "two"):
        workspace = Workspace.open(tmp_path / name, identity_key=bytes(32))

        def copied(stage, source, workspace=workspace):
            def body(context):
                for path in sorted(source.rglob("*")):
                    if path.is_file():
                        target = context.folder / path.relative_to(source)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(path.read_bytes())
                return {}

            return run_stage(workspace, Stage(stage, "pipeline.prepared_set", body), RunSettings(), records={})

        prepared = copied("prepare_mr_to_ct", case.folder / "set")
        translated = copied("translate_mr_to_ct", case.folder / "out")
        settings = RunSettings.model_validate({"evaluate": {"mr_to_ct": SETTINGS.model_dump()}})
        record = evaluate_mr_to_ct(workspace, settings, prepared, translated)
        contents.append((record.path(workspace.root) / "results.json").read_bytes())
        assert record.facts["headlines"]["mae"] == 3
        assert record.facts["verdicts"] == {"against_lookup": "good", "geometry": "good"}
    assert contents[0] == contents[1]


def test_training_subjects_are_listed_but_are_in_no_mean_headline_or_verdict(case):
    add_training(case, 2)
    ct, mask = anatomy(5)
    case.add("seen", "train", ct, mask, pseudo_ct=ct)  # translated, and without error
    for number in range(2):
        ct, mask = anatomy(number)
        case.add(f"s{number}", "test", ct, mask, pseudo_ct=np.where(mask > 0, ct + 50, ct))
    results = case.evaluate()
    rows = summary(results)
    assert rows["pseudo_ct"]["cases"] == 2
    assert {"seen", "s0", "s1"} == {row["subject_id"] for row in table(results, "mr_to_ct_cases").rows}
    assert results.headlines[0].value == rows["pseudo_ct"]["mae"] > 20
    assert "held-out" in results.headlines[0].text
    assert any("Training subjects" in warning for warning in results.warnings)


def test_figures_of_training_subjects_alone_are_never_called_held_out(case):
    add_training(case, 2)
    ct, mask = anatomy(5)
    case.add("seen", "train", ct, mask, pseudo_ct=ct)
    results = case.evaluate()
    assert "training subjects" in results.headlines[0].text
    assert any("show fit" in warning for warning in results.warnings)


def with_geometry(case, affines):
    """Give every translated case an MR grid and a NIfTI; ``affines`` say where the NIfTI of each case lies."""
    volumes = case.write()
    out = case.folder / "out"
    table = pl.read_parquet(out / "cases.parquet")
    shape = SHAPE[::-1]
    for number, affine in enumerate(affines):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), affine), out / f"{number}.nii.gz")
    table = table.with_columns(
        nifti_path=pl.Series([f"{number}.nii.gz" for number in range(len(affines))]),
        mr_shape=pl.Series([list(shape)] * len(affines)),
        mr_affine=pl.Series([np.diag([1.0, 1, 3, 1]).ravel().tolist()] * len(affines)),
    )
    table.write_parquet(out / "cases.parquet")
    return evaluate_translation(volumes, out, SETTINGS, 0, silent)


def test_a_pseudo_ct_written_on_another_grid_than_its_mr_is_not_scored(case):
    for number in range(2):
        ct, mask = anatomy(number)
        case.add(f"s{number}", "test", ct, mask, pseudo_ct=ct + 10)
    results = with_geometry(case, [np.diag([1.0, 1, 3, 1]), np.diag([-1.0, 1, 3, 1])])
    assert {row["subject_id"] for row in table(results, "mr_to_ct_cases").rows} == {"s0"}
    places = {row["subject_id"]: row for row in table(results, "mr_to_ct_geometry").rows}
    assert places["s0"]["agrees"]
    assert "axes run LAS, RAS expected" in places["s1"]["finding"]
    assert any("another geometry than its MR" in warning for warning in results.warnings)
    assert next(verdict for verdict in results.verdicts if verdict.key == "geometry").outcome == "bad"


def test_the_dialect_chooses_ssim_or_ms_ssim(case):
    ct, mask = anatomy(0)
    thick = [np.concatenate([image, image]) for image in (ct, mask)]
    newer = scoring_for({"unit": "HU", "spacing_mm": [1, 1, 1]}, SETTINGS)
    both = score(thick[0], thick[0] + 30, thick[1] > 0, newer)
    assert both["ms_ssim"] < both["ms_ssim_coarsest"] < 1, "each scale that counts luminance sees the offset again"
    assert "ssim" not in both
    older = SETTINGS.model_copy(update={"dialect": "synthrad2023"})
    scoring = scoring_for({"unit": "HU", "spacing_mm": [1, 1, 1]}, older)
    cells = score(thick[0], thick[0] + 30, thick[1] > 0, scoring)
    assert "ms_ssim" not in cells
    assert cells["ssim"] == pytest.approx(ssim(thick[0], thick[0] + 30, thick[1], scoring.value_range))


def test_a_stopping_power_table_of_the_settings_is_used(case):
    ct, mask = anatomy(0)
    linear = SETTINGS.model_copy(update={"stopping_power": ((-1000.0, 0.0), (3000.0, 4.0)), "wepl_directions": 2})
    scoring = scoring_for({"unit": "HU", "spacing_mm": [1, 1, 1]}, linear)
    cells = score(ct, ct + 10, mask > 0, scoring)
    inside = mask.sum(axis=2), mask.sum(axis=1)
    paths = np.concatenate([counts[counts >= 10] for counts in inside])
    assert cells["wepl_mean_abs"] == pytest.approx(0.01 * paths.mean(), rel=0.02)


@pytest.mark.parametrize("points", [[(0, 1)], [(0, 1), (0, 2)], [(0, 1), (10, -1)], [(0, 1), (10, float("nan"))]])
def test_a_stopping_power_table_that_is_none_is_refused_before_anything_runs(points):
    with pytest.raises(ValueError, match="strictly ascending"):
        EvaluateMRToCTSettings(stopping_power=points)
