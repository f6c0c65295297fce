"""What a run found, in the few lines that a person wants at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.progress import duration
from flows.words import counted, workspace_option
from pipeline.preflight import Preflight
from pipeline.records import StageRecord
from pipeline.results import RESULTS_FILE, Results, read_results
from pipeline.workspace import Workspace

_OUTPUTS = {
    "report": "report",
    "export_lesions": "augmented dataset",
    "synthesize_lesions": "synthetic lesions",
    "translate_mr_to_ct": "pseudo-CT",
}
_TITLES = {"lesions": "Synthetic lesions", "mr_to_ct": "Pseudo-CT from MR"}
_OUTCOME_STYLES = {"good": "green", "neutral": "yellow", "bad": "red"}


def results_of(workspace: Workspace, records: Mapping[str, StageRecord]) -> list[Results]:
    """Results of the evaluations among the records."""
    folders = [
        records[name].path(workspace.root) for name in ("evaluate_lesions", "evaluate_mr_to_ct") if name in records
    ]
    return [read_results(folder) for folder in folders if (folder / RESULTS_FILE).is_file()]


def headline_rows(workspace: Workspace, records: Mapping[str, StageRecord]) -> list[dict[str, Any]]:
    """Headline figures as table rows: track, figure, value, reference."""
    return [
        {
            "track": results.track,
            "figure": headline.text,
            "value": _number(headline.value),
            "reference": _reference(headline.reference, headline.reference_text),
        }
        for results in results_of(workspace, records)
        for headline in results.headlines
    ]


def report_file(workspace: Workspace, records: Mapping[str, StageRecord]) -> Path | None:
    """The HTML report, where the report step was taken."""
    record = records.get("report")
    return None if record is None else record.path(workspace.root) / "report.html"


def print_summary(console: Console, workspace: Workspace, records: Mapping[str, StageRecord], seconds: float) -> None:
    """Print headlines, verdicts, warnings, where outputs lie, what was quarantined, how long it took."""
    for results in results_of(workspace, records):
        _print_results(console, results)
    _print_outputs(console, workspace, records)
    _print_quarantine(console, workspace, records)
    _print_look_alikes(console, records)
    cached = sum(record.cached for record in records.values())
    console.print(
        f"\n{counted(len(records), 'step')}, {cached} of them found done, in {duration(seconds)}.", highlight=False
    )
    if results_of(workspace, records):
        console.print("For research; not for clinical use.", style="dim")


def print_preflight(console: Console, preflight: Preflight) -> None:
    """Print what the run needs beside what there is."""
    table = Table(title=f"Before the run (estimates, device {preflight.device})", title_justify="left")
    for heading in ("resource", "needs about", "available"):
        table.add_column(heading, justify="left" if heading == "resource" else "right")
    for need in preflight.needs:
        table.add_row(need.resource, _bytes(need.need), _bytes(need.have), style=None if need.met else "red")
    total = sum(preflight.seconds.values())
    table.add_row("time, if nothing is done yet", duration(total), "")
    for step, seconds in preflight.seconds.items():
        table.add_row(f"  {step}", duration(seconds), "", style="dim")
    console.print(table)


def _print_results(console: Console, results: Results) -> None:
    console.print(f"\n{_TITLES[results.track]}", style="bold")
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("figure", "value", "compare with"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for headline in results.headlines:
        reference = _reference(headline.reference, headline.reference_text)
        table.add_row(headline.text, _number(headline.value), reference)
    console.print(table)
    for verdict in results.verdicts:
        style = _OUTCOME_STYLES[verdict.outcome]
        console.print(f"{verdict.outcome}: {verdict.sentence}", style=style, markup=False, highlight=False)
    for warning in results.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def _print_outputs(console: Console, workspace: Workspace, records: Mapping[str, StageRecord]) -> None:
    rows = [(title, records[name].path(workspace.root)) for name, title in _OUTPUTS.items() if name in records]
    if rows:
        console.print("\nOutputs", style="bold")
    for title, folder in rows:
        path = folder / "report.html" if title == "report" else folder
        console.print(f"  {title:18} {path}", markup=False, highlight=False, soft_wrap=True)


def _print_quarantine(console: Console, workspace: Workspace, records: Mapping[str, StageRecord]) -> None:
    catalog = records.get("ingest")
    count = catalog.facts.get("quarantined", 0) if catalog else 0
    if isinstance(count, int) and count:
        console.print(
            f"\n{counted(count, 'input')} {'was' if count == 1 else 'were'} set aside; see why:"
            f" scanloom quarantine list{workspace_option(workspace.root)}",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _print_look_alikes(console: Console, records: Mapping[str, StageRecord]) -> None:
    catalog = records.get("ingest")
    count = catalog.facts.get("look_alikes", 0) if catalog else 0
    if isinstance(count, int) and count:
        text = (
            f"\n{counted(count, 'pair')} of scans of different subjects show the same: maybe one patient under two ids."
            " They are listed in the report and in look_alikes.parquet of the catalog."
        )
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _reference(value: float | None, text: str) -> str:
    return text if value is None else f"{_number(value)} {text}".strip()


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
