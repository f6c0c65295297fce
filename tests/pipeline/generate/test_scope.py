"""A model that knows one kind of body is given others: refused, or translated with the reason stamped on it."""

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest

from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.generate.stage import translate_mr_to_ct
from pipeline.settings import RunSettings

SHAPE = (40, 48, 12)
AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
WHY = "phantom study, reviewed by M. Ade"


def units(seed, inverted=False):
    """A round body with a bright rim, a dark ring and a bright middle; (i, j, k) units and mask."""
    rng = np.random.default_rng(seed)
    i, j, _ = np.indices(SHAPE)
    distance = np.hypot((i - 19.5) / (15 + rng.normal() / 4), (j - 23.5) / (19 + rng.normal() / 4))
    values = np.select([distance < 0.7, distance < 0.85, distance < 1], [0.2, -0.7, 0.6], -1.0)
    values = np.where(np.hypot(i - 24, j - 30) < 4, 0.9, values) + 0.02 * rng.normal(size=SHAPE)
    mask = distance < 1
    return np.where(mask, 0.2 - values if inverted else values, -1), mask


@pytest.fixture
def cohort(world):
    for seed in range(5):
        values, mask = units(seed)
        world.add(f"train{seed}", values, AFFINE, SHAPE, AFFINE, mask=mask, split="train")
    for name, seed, inverted in (("good", 50, False), ("wrong", 51, True)):
        values, mask = units(seed, inverted=inverted)
        world.add(name, values, AFFINE, SHAPE, AFFINE, mask=mask, sequence="T1")
    return world


def translate(world, *, scoped=True, **changes):
    records = world.records(scoped=scoped)
    settings = RunSettings.model_validate({"device": "cpu", "generate": {"mr_to_ct": changes}})
    record = translate_mr_to_ct(world.workspace, settings, records["catalog"], records["prepared"], records["trained"])
    folder = record.path(world.workspace.root)
    cases = {case["subject_id"]: case for case in pl.read_parquet(folder / "cases.parquet").to_dicts()}
    return record, folder, cases


def header_of(folder, case):
    return pydicom.dcmread(next((folder / case["dicom_folder"]).glob("*.dcm")))


def test_what_is_out_of_scope_is_refused_with_reasons_and_the_rest_translated(cohort):
    record, folder, cases = translate(cohort)
    assert list(cases) == ["sub-good"]
    assert cases["sub-good"]["scope"] == "in scope"
    assert cases["sub-good"]["scope_severity"] < 1
    assert (record.facts["cases"], record.facts["refused"], record.facts["risk_accepted"]) == (1, 1, 0)
    (refused,) = pl.read_parquet(folder / "refused.parquet").to_dicts()
    assert refused["subject_id"] == "sub-wrong"
    assert refused["scope_severity"] > 1
    assert "MR units" in " ".join(refused["scope_findings"])
    assert record.facts["refusals"] == {"mr-wrong": refused["scope_findings"][0]}
    assert not list(folder.glob("sub-wrong*"))
    header = header_of(folder, cases["sub-good"])
    assert header.SeriesDescription == "Pseudo-CT from MR, NOT FOR CLINICAL USE"


def test_an_accepted_risk_is_stamped_on_everything(cohort):
    record, folder, cases = translate(cohort, accept_risk=WHY)
    case = cases["sub-wrong"]
    assert (case["scope"], case["accepted_risk"]) == ("out of scope", WHY)
    assert cases["sub-good"]["accepted_risk"] is None
    assert (record.facts["refused"], record.facts["risk_accepted"]) == (0, 1)
    header = header_of(folder, case)
    assert header.SeriesDescription == "Pseudo-CT from MR, OUT OF SCOPE, NOT FOR CLINICAL USE"
    assert WHY in header.DerivationDescription
    assert case["scope_findings"][0] in header.DerivationDescription
    sidecar = read_json(folder / case["nifti_path"].replace(".nii.gz", ".json"))
    assert sidecar["SeriesDescription"] == header.SeriesDescription
    assert sidecar["scanloom"]["scope"]["accepted_risk"] == WHY
    checks = pl.read_parquet(folder / "checks.parquet").filter(pl.col("series_id") == "mr-wrong")
    (scope,) = checks.filter(pl.col("check") == "scope of the model").to_dicts()
    assert scope["light"] == "red"
    assert WHY in scope["meaning"]
    good = read_json(folder / cases["sub-good"]["nifti_path"].replace(".nii.gz", ".json"))
    assert "OUT OF SCOPE" not in str(good)


def test_nothing_in_scope_ends_with_reasons_and_what_to_do(world):
    for seed in range(5):
        values, mask = units(seed)
        world.add(f"train{seed}", values, AFFINE, SHAPE, AFFINE, mask=mask, split="train")
    values, mask = units(51, inverted=True)
    world.add("wrong", values, AFFINE, SHAPE, AFFINE, mask=mask)
    with pytest.raises(InputError, match="kind that it was trained on") as caught:
        translate(world)
    assert "1 MR out of scope" in caught.value.found
    assert "--accept-risk" in caught.value.change


def test_a_model_without_a_card_cannot_refuse_and_says_so(cohort):
    _, folder, cases = translate(cohort, scoped=False, dicom=False)
    assert {case["scope"] for case in cases.values()} == {"not checked"}
    checks = pl.read_parquet(folder / "checks.parquet")
    assert set(checks.filter(pl.col("check") == "scope of the model")["light"]) == {"none"}


@pytest.mark.parametrize("why", ["short", "with a \\ backslash", "two\nlines of it", "x" * 201])
def test_a_reason_must_fit_the_header(why):
    with pytest.raises(ValueError, match="accept_risk"):
        RunSettings.model_validate({"generate": {"mr_to_ct": {"accept_risk": why}}})


def test_maps_lie_on_the_grid_of_the_mr(cohort):
    """The network here is asymmetric, so that its mirrored answer differs."""
    _, folder, cases = translate(cohort, dicom=False)
    case = cases["sub-good"]
    image = nib.load(folder / case["uncertainty_nifti"])
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)
    stored = np.load(folder / case["uncertainty"])
    assert np.array_equal(np.asarray(image.dataobj), stored.transpose(2, 1, 0)[::-1, ::-1])
    assert stored.dtype == np.int16
    assert stored.max() > 0
    assert case["cycle_residual"] is None, "the model has no way back"
    _, _, single = translate(cohort, dicom=False, mirrored=False)
    assert single["sub-good"]["uncertainty"] is None
