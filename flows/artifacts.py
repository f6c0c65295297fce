"""What Prefect's pages show of a run: progress of trainings, a summary, the headline figures, where the report lies.

An artifact is a courtesy: when the server cannot take one, the run goes on without it.
"""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.progress import duration
from flows.summary import headline_rows, report_file
from pipeline.records import StageRecord
from pipeline.workspace import Workspace

UPDATE_INTERVAL_S = 5.0
"""Least time between two updates of a progress artifact; each is a request to the server."""


class TrainingArtifact:
    """Progress of one training, as a Prefect progress artifact; made with the first progress, never for a found one.

    Args:
        step: name of the training step.
    """

    def __init__(self, step: str) -> None:
        self._key = step.replace("_", "-")
        self._artifact: UUID | None = None
        self._broken = False
        self._told_at = 0.0

    def advance(self, what: str, done: int, total: int) -> None:
        """Tell the server, at most every `UPDATE_INTERVAL_S` seconds; a `ProgressCallback`."""
        now = time.monotonic()
        if total and now - self._told_at >= UPDATE_INTERVAL_S:
            self._told_at = now
            self._tell(min(100.0, 100.0 * done / total), f"{what}: {total:,} in all")

    def finish(self) -> None:
        """Say that the training is complete."""
        if self._artifact is not None:
            self._tell(100.0, "complete")

    def _tell(self, percent: float, description: str) -> None:
        if self._broken:
            return
        try:
            if self._artifact is None:
                made = create_progress_artifact(progress=percent, key=self._key, description=description)
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=percent)
        except Exception:  # whatever the server or the way to it does, the training goes on
            self._broken = True


def write_run_artifacts(workspace: Workspace, records: Mapping[str, StageRecord]) -> bool:
    """Write summary and headline artifacts; False where the server did not take them."""
    rows: list[dict[str, Any]] = headline_rows(workspace, records)
    try:
        create_markdown_artifact(key="run-summary", markdown=summary_markdown(workspace, records))
        if rows:
            create_table_artifact(key="headlines", table=rows, description="Headline figures, beside their references")
    except Exception:  # see the module's docstring
        return False
    return True


def summary_markdown(workspace: Workspace, records: Mapping[str, StageRecord]) -> str:
    """The steps of a run as Markdown; folders are relative to the workspace."""
    lines = ["| step | output | made |", "|---|---|---|"]
    for name, record in records.items():
        made = "found" if record.cached else _seconds(record)
        lines.append(f"| {name} | `{record.folder}` | {made} |")
    report = report_file(workspace, records)
    if report is not None:
        lines += ["", f"Report: `{report.relative_to(workspace.root).as_posix()}` in the workspace."]
    return "\n".join(lines)


def _seconds(record: StageRecord) -> str:
    seconds = record.facts.get("seconds")
    return f"in {duration(float(seconds))}" if isinstance(seconds, int | float) else "now"
