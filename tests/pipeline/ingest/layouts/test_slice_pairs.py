import numpy as np
import polars as pl
import pytest

from pipeline.ingest.layouts.slice_pairs import _case_and_slice


@pytest.mark.parametrize(
    ("stem", "case", "number"), [("20113", "20", 113), ("2007", "2", 7), ("1BA001-045", "1BA001", 45)]
)
def test_a_stem_is_case_and_three_digits(stem, case, number):
    assert _case_and_slice(stem) == (case, number)


def test_registered_slices_share_a_pair_key_and_cases_are_subjects(inputs, run_ingest):
    pixels = {}
    for number, name in enumerate(["MR/2001", "CT/2001", "MR/2002", "CT/2002", "MR/16001", "CT/16009"]):
        pixels[name] = np.random.default_rng(number).integers(0, 255, (20, 20)).astype(np.uint8)
        inputs.image(f"{name}.png", pixels[name])
    result = run_ingest()
    series = result.catalog.series
    assert result.record.facts["layout"] == "slice_pairs"
    assert set(series["unit"]) == {"grey"}
    assert result.record.facts["subjects"] == 2
    assert series["pair_key"].null_count() == 2
    for _, pair in series.drop_nulls("pair_key").group_by("pair_key"):
        rows = {row["modality"]: row for row in pair.iter_rows(named=True)}
        name = f"2{rows['MR']['slice_index']:03d}"
        for modality in ("MR", "CT"):
            np.testing.assert_array_equal(result.catalog.image(rows[modality]), pixels[f"{modality}/{name}"])
    assert set(series.filter(pl.col("pair_key").is_null())["slice_index"]) == {1, 9}
    assert result.catalog.lesions.height == 0


def test_pairs_of_unequal_size_color_and_nameless_slices_are_quarantined(inputs, run_ingest):
    inputs.image("MR/2001.png")
    inputs.image("CT/2001.png")
    inputs.image("MR/2002.png", np.zeros((20, 20), np.uint8))
    inputs.image("CT/2002.png", np.zeros((20, 30), np.uint8))
    inputs.image("MR/2003.png", np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))
    inputs.image("MR/scout.png")
    result = run_ingest(layout="slice_pairs")
    assert result.reasons() == ["NO_CASE", "PAIR_SIZE_MISMATCH", "PAIR_SIZE_MISMATCH", "UNSUPPORTED_COLOR"]
    assert result.record.facts["series"] == 2
