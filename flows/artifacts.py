"""What Prefect's pages show of a run: progress, a summary, the headline figures, curves, where the report lies.

An artifact is a courtesy: when the server cannot take one, the run goes on without it. None holds an image of a scan:
the curves of a training are drawn from its log. The report is linked where `scanloom serve`, or a web server of yours
that SCANLOOM_REPORTS_URL names, shows it; its address holds the site's name and the report's key, no path.
"""

import base64
import os
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.prefect_environment import REPORTS_URL
from flows.progress import duration
from flows.summary import headline_rows, report_file
from pipeline.records import StageRecord
from pipeline.workspace import Workspace

UPDATE_INTERVAL_S = 5.0
"""Least time between two updates of a progress artifact; each is a request to the server."""


class StepProgress:
    """Progress of one step, as a Prefect progress artifact; made once the step is at work for some seconds.

    Args:
        step: name of the step.
    """

    def __init__(self, step: str) -> None:
        self._key = step.replace("_", "-")
        self._artifact: UUID | None = None
        self._broken = False
        self._told_at = time.monotonic()

    def advance(self, what: str, done: int, total: int) -> None:
        """Tell the server, at most every `UPDATE_INTERVAL_S` seconds; a `ProgressCallback`."""
        now = time.monotonic()
        if total and now - self._told_at >= UPDATE_INTERVAL_S:
            self._told_at = now
            self._tell(min(100.0, 100.0 * done / total), f"{what}: {total:,} in all")

    def finish(self) -> None:
        """Say that the step is complete."""
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
        except Exception:  # whatever the server or the way to it does, the step goes on
            self._broken = True


def write_step_artifacts(workspace: Workspace, step: str, record: StageRecord) -> bool:
    """Write the curves of a training that was made now; False where there are none or the server did not take them."""
    if not step.startswith("train_") or record.cached:
        return False
    from pipeline.report.training_picture import training_picture

    try:
        picture = base64.b64encode(training_picture(record.path(workspace.root)).encode()).decode()
        create_image_artifact(
            image_url=f"data:image/svg+xml;base64,{picture}",
            key=f"{step.replace('_', '-')}-curves",
            description="Losses and measures of the training",
        )
    except Exception:  # see the module's docstring
        return False
    return True


def write_run_artifacts(workspace: Workspace, records: Mapping[str, StageRecord], site: str | None = None) -> bool:
    """Write summary, headlines and link of the report; False where the server did not take them."""
    rows: list[dict[str, Any]] = headline_rows(workspace, records)
    link = report_link(records, site)
    try:
        create_markdown_artifact(key="run-summary", markdown=summary_markdown(workspace, records))
        if rows:
            create_table_artifact(key="headlines", table=rows, description="Headline figures, beside their references")
        if link:
            create_link_artifact(link=link, link_text="Report", key="report", description="The report of this run")
    except Exception:  # see the module's docstring
        return False
    return True


def report_link(records: Mapping[str, StageRecord], site: str | None) -> str | None:
    """Address of the report; None where no report was written, the run is of no site, or nothing shows reports."""
    base, record = os.environ.get(REPORTS_URL), records.get("report")
    if not base or site is None or record is None:
        return None
    return f"{base.rstrip('/')}/{site}/{record.key[:16]}/report.html"


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
