"""The comparison of runs as one HTML file and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import read_json, write_json, write_text
from pipeline.report.comparison import MOST_RUNS, NEEDED, Comparison, compare
from pipeline.report.page import SCRIPTS, STYLES, environment, joined_sources, source_hash

COMPARISON_PAGE, COMPARISON_NUMBERS = "comparison.html", "comparison.json"


def write_comparison(reports: Sequence[Path], folder: Path) -> Comparison:
    """Write ``comparison.html`` and ``comparison.json`` into ``folder``.

    Args:
        reports: folders of two or more reports, in the order of the columns.
        folder: where to write; made when absent.

    Raises:
        InputError: fewer than two or too many runs, or a report of an older release.
    """
    if not 2 <= len(reports) <= MOST_RUNS:
        raise InputError(
            "A comparison needs two or more runs.",
            found=f"{len(reports)} runs",
            allowed=f"2 to {MOST_RUNS} workspaces",
            change="Name the workspaces: scanloom report A B.",
        )
    found = compare([_numbers(report, place) for place, report in enumerate(reports, 1)])
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / COMPARISON_PAGE, render_comparison(found))
    write_json(folder / COMPARISON_NUMBERS, _content(found))
    return found


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML."""
    style, script = joined_sources(STYLES), joined_sources(SCRIPTS)
    template = environment().get_template("comparison.html")
    return template.render(
        comparison=comparison,
        style=style,
        script=script,
        style_hash=source_hash(style),
        script_hash=source_hash(script),
    )


def _numbers(report: Path, place: int) -> dict[str, Any]:
    numbers: dict[str, Any] = read_json(report / "report.json")
    missing = [part for part in NEEDED if part not in numbers]
    if missing:
        raise InputError(
            "Reports are compared by numbers that this release writes.",
            found=f"report {place} without {', '.join(missing)}",
            allowed="reports of this release",
            change="Write the report of that workspace again: scanloom report --workspace DIR.",
        )
    return numbers


def _content(comparison: Comparison) -> dict[str, Any]:
    return {
        "runs": {run.letter: run.name for run in comparison.runs},
        "comparable": {
            footing.track: {"outcome": footing.outcome, "why": footing.sentence} for footing in comparison.footings
        },
        "decisions": {
            track: {run.letter: decision for run, decision in decisions} for track, decisions in comparison.decisions
        },
        "tables": {
            table.key: [
                {
                    heading.title: f"{cell.text} {cell.interval}".strip()
                    for heading, cell in zip(table.headings, row, strict=True)
                }
                for row in table.rows
            ]
            for table in comparison.tables
        },
    }
