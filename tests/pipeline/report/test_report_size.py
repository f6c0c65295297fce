"""A report of a large run stays small enough to mail, and opens without a complaint."""

from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM
from benchmarks.report_size import LARGEST_BYTES, large_run, measure_opening
from pipeline.report.stage import write_report
from pipeline.settings import RunSettings


@pytest.mark.slow
@pytest.mark.chromium
def test_ten_thousand_images_and_a_large_pseudo_ct_fit_into_forty_megabytes(tmp_path: Path) -> None:
    run = large_run(tmp_path / "workspace", images=10_000, side=256)
    record = write_report(run.workspace, RunSettings(), run.records)
    page = record.path(run.workspace.root) / "report.html"
    assert 20_000_000 < page.stat().st_size < LARGEST_BYTES
    if CHROMIUM is not None:
        opened = measure_opening(page, rounds=1)
        assert opened["complaints"] == []
        assert opened["cpu_seconds_to_load"][0] < 3
