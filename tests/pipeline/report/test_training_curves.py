"""Curves of a training, and the alarms of its flight recorder among them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.report.charts import LEFT, RIGHT, WIDTH
from pipeline.report.page import environment
from pipeline.report.training_curves import TERMS, training_view
from pipeline.training_alarms import TrainingAlarm, write_alarms


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training of 100 rows with two alarms, one of them with a picture."""
    folder = tmp_path / "train_lesions" / "0123"
    (folder / "grids").mkdir(parents=True)
    (folder / "alarms").mkdir()
    rows = np.arange(1, 101)
    pl.DataFrame({"images": rows * 10, "d_loss": 1 / rows, "my_term": rows * 0.5}).write_parquet(folder / "log.parquet")
    Image.fromarray(np.full((8, 12), 90, np.uint8)).save(folder / "alarms" / "000.png")
    common = {"found": "d_loss 0.001 <b>", "rule": "below 2 %", "advice": "Lower the rate."}
    write_alarms(
        folder,
        [
            TrainingAlarm(alarm="discriminator_won", images=500, action="warn", picture="alarms/000.png", **common),
            TrainingAlarm(alarm="non_finite", images=1000, action="stop", **common),
        ],
    )
    return folder


def test_alarms_come_as_a_table_with_pictures_and_as_lines_in_every_curve(training: Path) -> None:
    view = training_view(training, "lesions")
    assert view.watched
    assert view.alarms is not None
    assert view.alarms.key == "train_lesions_alarms"
    assert [row[0].text for row in view.alarms.rows] == ["discriminator_won", "non_finite"]
    assert [(grid.images, grid.title) for grid in view.alarm_pictures] == [(500, "discriminator won")]
    middle, end = (LEFT + share * (WIDTH - LEFT - RIGHT) for share in (0.5, 1.0))
    for chart in (*view.charts, *view.further_charts):
        assert chart.alarms == pytest.approx((middle, end), abs=0.1)
    assert [chart.title for chart in view.further_charts] == ["my term"]


def test_the_page_says_what_was_raised_as_text(training: Path) -> None:
    template = environment().from_string('{% import "parts.html" as parts %}{{ parts.training(view) }}')
    page = template.render(view=training_view(training, "lesions"))
    assert "raised 2 alarms" in page
    assert page.count('class="alarm"') == 4
    assert "d_loss 0.001 &lt;b&gt;" in page
    assert "<b>" not in page


def test_a_healthy_training_says_so_and_an_older_one_says_nothing(training: Path) -> None:
    template = environment().from_string('{% import "parts.html" as parts %}{{ parts.training(view) }}')
    write_alarms(training, [])
    assert "raised no alarm" in template.render(view=training_view(training, "lesions"))
    (training / "alarms.json").unlink()
    assert "alarm" not in template.render(view=training_view(training, "lesions"))


def test_every_known_term_has_a_title_and_a_note_of_its_own() -> None:
    assert len({term.title for term in TERMS.values()}) == len(TERMS)
    assert all(term.note.endswith(".") for term in TERMS.values())
