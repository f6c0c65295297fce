import numpy as np
import polars as pl
import pytest

from pipeline.intensity import CT_MAP
from pipeline.prepared_set import VolumeSetWriter, read_volume_set
from pipeline.report.case_quality import quality_pages
from pipeline.report.page import environment
from pipeline.results import Column, Results, ResultTable

SHAPE = (5, 30, 24)


@pytest.fixture
def made(tmp_path):
    """Three translated MR whose checks are green, red and amber; the amber one was scored, a fourth MR was refused."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 4:26, 4:20] = 1
    row = {"modality": "MR", "split": "test", "pair_volume": -1, "own_grid": True, "affine": None}
    cases, checks = [], []
    with VolumeSetWriter(tmp_path / "set") as writer:
        for name, light in (("a", "green"), ("b", "red"), ("c", "amber")):
            own = {"series_id": name, "subject_id": f"sub-{name}", "split": "test"}
            volume = writer.add(row | own, np.zeros(SHAPE, np.int16), mask)
            np.save(tmp_path / f"{name}.npy", np.where(mask, 40, -1000).astype(np.int16))
            spread = np.zeros(SHAPE, np.int16)
            spread[3] = 50 * mask[3]
            np.save(tmp_path / f"{name}-u.npy", spread)
            paths = {"prepared_path": f"{name}.npy", "uncertainty": f"{name}-u.npy", "cycle_residual": None}
            cases.append(own | paths | {"volume": volume})
            for each, value in (("scope", "green"), ("outline <b>", light)):
                checks.append(
                    {"series_id": name, "volume": volume, "check": each, "light": value, "value": 0.5, "unit": "Dice"}
                    | {"rule": "a rule", "meaning": "<script>alert(1)</script>"}
                )
        knots = {"knots_hu": list(CT_MAP.knots_hu), "knots_unit": list(CT_MAP.knots_unit)}
        writer.close({"unit": "HU", "ct_map": knots, "spacing_mm": [1.0, 1.0, 3.0]})
    pl.DataFrame(cases).write_parquet(tmp_path / "cases.parquet")
    pl.DataFrame(checks).write_parquet(tmp_path / "checks.parquet")
    refused = {"series_id": ["d"], "scope_findings": [["width: 400 mm, where 150 to 200 mm is known"]]}
    pl.DataFrame(refused).write_parquet(tmp_path / "refused.parquet")
    columns = (Column(key="subject_id", title="subject"), Column(key="mae", title="MAE", unit="HU", digits=1))
    rows = ({"series_id": "c", "method": "mean_ct", "mae": 9.0}, {"series_id": "c", "method": "pseudo_ct", "mae": 5.25})
    table = ResultTable(key="mr_to_ct_cases", title="", caption="", columns=columns, rows=rows)
    results = Results(track="mr_to_ct", headlines=(), verdicts=(), tables=(table,))
    return read_volume_set(tmp_path / "set"), tmp_path, results


def test_the_gravest_light_comes_first_and_the_least_certain_slice_is_shown(made):
    prepared, folder, results = made
    found = quality_pages(prepared, folder, None, results, 10)
    assert [(page.series_id, page.light) for page in found.pages] == [("b", "red"), ("c", "amber"), ("a", "green")]
    assert {page.place for page in found.pages} == {"slice 4 of 5, the least certain one"}
    assert [page.scores for page in found.pages] == [(), (("MAE [HU]", "5.2"),), ()]
    assert found.refused == (("d", "width: 400 mm, where 150 to 200 mm is known"),)
    assert [tile.heading.split(",")[0] for tile in found.pages[0].tiles] == ["MR", "pseudo-CT", "Uncertainty"]
    assert len(quality_pages(prepared, folder, None, results, 1).pages) == 1


def test_what_is_shown_is_escaped(made):
    prepared, folder, results = made
    page = quality_pages(prepared, folder, None, results, 10)
    text = environment().from_string('{% import "quality_parts.html" as q %}{{ q.quality(page) }}').render(page=page)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count('<article class="quality">') == 3
    assert "400 mm" in text


def test_a_translation_without_checks_has_no_pages(made, tmp_path):
    prepared, folder, _ = made
    (folder / "checks.parquet").unlink()
    assert quality_pages(prepared, folder, None, None, 10) is None
