"""`scanloom report A B …`: the newest reports of several workspaces side by side."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.stage_runner import verified_record
from pipeline.workspace import Workspace

COMPARISON_FOLDER = "comparison"
"""Folder in the first workspace where a comparison is written unless another is named."""


def compare_workspaces(console: Console, roots: Sequence[Path], output: Path | None) -> None:
    """Write the comparison and say where it lies and whether the runs are comparable.

    Args:
        console: where to say it.
        roots: workspaces, in the order of the columns.
        output: folder for the comparison; None for ``comparison/`` in the first workspace.

    Raises:
        InputError: a workspace holds no report, or is named twice.
    """
    from pipeline.report.comparison_page import COMPARISON_PAGE, write_comparison

    places = [root.expanduser().resolve() for root in roots]
    if len(set(places)) < len(places):
        raise InputError(
            "A comparison is of different workspaces.",
            found="one workspace named twice",
            allowed="different workspaces",
            change="Name each workspace once.",
        )
    reports = [newest_report(root) for root in places]
    folder = output.expanduser().resolve() if output else places[0] / COMPARISON_FOLDER
    found = write_comparison(reports, folder)
    for footing in found.footings:
        style = {"good": "green", "neutral": "yellow", "bad": "bold red"}[footing.outcome]
        console.print(f"{footing.track}: {footing.sentence}", style=style, markup=False, highlight=False)
    console.print(f"comparison {folder / COMPARISON_PAGE}", markup=False, highlight=False, soft_wrap=True)


def newest_report(root: Path) -> Path:
    """Folder of the report that was written or found again last.

    Raises:
        InputError: there is none.
    """
    if (root / "workspace.json").is_file():
        workspace = Workspace.open(root)
        for row in reversed(Ledger(workspace.ledger_path).rows("report")):
            if row.state in {"completed", "cached"}:
                record = verified_record(workspace.stage_folder("report", row.key))
                if record is not None:
                    return record.path(workspace.root)
    raise InputError(
        "Runs are compared by their reports.",
        found=f"no finished report in {root}",
        allowed="workspaces in which `scanloom report` or `scanloom run` has ended",
        change=f"Write it first: scanloom report --workspace {root}.",
    )
