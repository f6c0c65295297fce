from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.prepared_set import VolumeSetWriter, read_volume_set
from pipeline.report.case_pictures import CaseGallery, case_gallery
from pipeline.settings import ReportSettings

SHAPE = (6, 20, 16)


def gallery(
    folder: Path, errors: list[int | None], slices: int = 2, *, empty_mask: bool = False, **report: int
) -> CaseGallery:
    """A gallery of one case for each error in HU; None has no CT."""
    writer = VolumeSetWriter(folder)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:5, 8:12, 6:10] = 0 if empty_mask else 1
    ct = np.full(SHAPE, -1000, np.int16)
    common = {"subject_id": "sub", "split": "test", "pair_volume": -1, "own_grid": True, "affine": None}
    (folder / "made").mkdir()
    rows = []
    for case, error in enumerate(errors):
        row = common | {"series_id": f"ser-{case}", "modality": "MR", "mr_low": 0.0, "mr_high": 1.0}
        volume = writer.add(row, np.zeros(SHAPE, np.int16), mask)
        if error is not None:
            writer.link(volume, writer.add(row | {"modality": "CT"}, ct, mask))
        pseudo_ct = ct + np.int16(error or 0) * mask.astype(np.int16)
        np.save(folder / "made" / f"{case}.npy", pseudo_ct)
        rows.append({"series_id": f"ser-{case}", "subject_id": "sub", "split": "test", "volume": volume})
        rows[-1] |= {"prepared_path": f"{case}.npy"}
    writer.close({"unit": "HU", "spacing_mm": None})
    pl.DataFrame(rows).write_parquet(folder / "made" / "cases.parquet")
    settings = ReportSettings(slices_per_case=slices, **report)
    return case_gallery(read_volume_set(folder), folder / "made", settings)


def test_cases_spread_from_the_lowest_error_to_the_highest(tmp_path: Path) -> None:
    shown = gallery(tmp_path, [50, 10, 90, 20, 80, 30, 70, 40, 60], cases=5)
    assert [case.series_id for case in shown.cases] == ["ser-1", "ser-5", "ser-0", "ser-6", "ser-2"]
    assert shown.cases[0].rank == "lowest error of 9"
    assert shown.cases[2].rank == "median error of 9"
    assert shown.cases[1].rank == "error 3 of 9, lowest first"
    assert shown.cases[-1].rank == "highest error of 9"
    assert (shown.total, shown.scored) == (9, 9)


@pytest.mark.parametrize(
    ("cases", "shown"), [(1, ["ser-0"]), (2, ["ser-1", "ser-2"]), (3, ["ser-1", "ser-0", "ser-2"])]
)
def test_one_case_is_the_median_and_two_are_the_ends(tmp_path: Path, cases: int, shown: list[str]) -> None:
    found = gallery(tmp_path, [50, 10, 90, 20, 80], cases=cases)
    assert [case.series_id for case in found.cases] == shown


def test_cases_without_a_ct_come_last_and_have_no_error_map(tmp_path: Path) -> None:
    shown = gallery(tmp_path, [None, 30, None, -10], cases=4)
    assert [case.series_id for case in shown.cases] == ["ser-3", "ser-1", "ser-0", "ser-2"]
    headings = [[tile.heading for tile in case.rows[0].tiles] for case in shown.cases]
    assert headings[0][-1] == "Error"
    assert headings[2] == ["MR", "Pseudo-CT, soft tissue", "Pseudo-CT, bone"]
    assert shown.cases[2].rank == "not compared"


def test_slices_lie_inside_the_body_and_pictures_are_cut_to_it(tmp_path: Path) -> None:
    shown = gallery(tmp_path, [5])
    assert [row.height for row in shown.cases[0].rows] == ["slice 3 of 6", "slice 5 of 6"]
    first = shown.cases[0].rows[0].tiles[0].picture
    assert (first.width, first.height) == (4 + 2 * 4, 4 + 2 * 4)


@pytest.mark.parametrize("slices", [1, 4, 50])
def test_never_more_slices_than_the_body_has(tmp_path: Path, slices: int) -> None:
    assert len(gallery(tmp_path, [5], slices).cases[0].rows) == min(slices, 4)


def test_an_empty_body_outline_shows_the_whole_slice(tmp_path: Path) -> None:
    shown = gallery(tmp_path, [5], empty_mask=True)
    first = shown.cases[0].rows[0].tiles[0].picture
    assert (first.width, first.height) == (16, 20)
    assert shown.scored == 0


def test_the_maps_that_a_translation_wrote_stand_in_the_viewer(tmp_path: Path) -> None:
    gallery(tmp_path, [5, 9])
    table = pl.read_parquet(tmp_path / "made" / "cases.parquet")
    np.save(tmp_path / "made" / "spread.npy", np.full(SHAPE, 12.6, np.float32))
    np.save(tmp_path / "made" / "back.npy", np.full(SHAPE, 80, np.int16))
    spreads, backs = (
        pl.Series("uncertainty", ["spread.npy", None]),
        pl.Series("cycle_residual", ["back.npy", "back.npy"]),
    )
    table.with_columns(spreads, backs).write_parquet(tmp_path / "made" / "cases.parquet")
    shown = case_gallery(read_volume_set(tmp_path), tmp_path / "made", ReportSettings())
    first, second = (case.viewer for case in shown.cases)
    assert first is not None
    assert second is not None
    every = ["mr", "pseudo_ct", "ct", "error", "uncertainty", "cycle_residual"]
    assert [key for key, _ in first.panels] == every
    assert first.volumes[-2].packed.low == 13
    assert {key: scale.words for key, scale in first.maps.items()} == {
        "uncertainty": "black 0 to white 300 HU",
        "cycle_residual": "black 0 to white 0.5 MR units",
    }
    assert [key for key, _ in second.panels] == every[:4] + every[5:]
    assert list(second.maps) == ["cycle_residual"]


def test_viewers_can_be_left_out(tmp_path: Path) -> None:
    assert all(case.viewer is None for case in gallery(tmp_path, [5, 9], viewer_megabytes=0).cases)
