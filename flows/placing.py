"""What `scanloom place-lesions` does: judge a cohort, read hosts and masks, set lesions into the hosts."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from flows.outside_workspace import refuse_outside
from flows.progress import display_for
from flows.requests import Options, load_settings
from flows.stage_commands import run_steps
from pipeline.errors import InputError
from pipeline.lease import held
from pipeline.preflight import check_input
from pipeline.records import ProgressCallback, StageRecord
from pipeline.workspace import Workspace

_Make = Callable[[ProgressCallback], StageRecord]


def place_into_hosts(
    options: Options,
    console: Console,
    *,
    hosts: Path | None = None,
    masks: Path | None = None,
    input_folder: Path | None = None,
) -> StageRecord:
    """Set synthetic lesions into healthy scans.

    Args:
        options: workspace, settings, debug.
        console: where progress and outputs are shown.
        hosts: folder of healthy scans, NIfTI, MetaImage, NRRD or DICOM; None takes those of the workspace's scans that
            no lesion is listed for.
        masks: folder of masks, named like their hosts, in which lesions may go; None takes the body.
        input_folder: the scans that the generator learns from; None goes on with those ingested last.

    Raises:
        ScanloomError: a step cannot begin or go on.
    """
    from pipeline.generate.placement import place_lesions
    from pipeline.ingest.outside_volumes import Role, ingest_outside_volumes

    if masks is not None and hosts is None:
        raise InputError(
            "Masks are matched with hosts by the names of their files.",
            found="--masks without --hosts",
            allowed="both, or neither",
            change="Give the folder of the hosts with --hosts.",
        )
    for folder in (hosts, masks):
        if folder is not None:
            check_input(folder, options.workspace)
    records = run_steps(options, ("evaluate_lesions",), console, input_folder=input_folder)
    settings, _ = load_settings(options)
    workspace = Workspace.open(options.workspace)
    with held(workspace, "place-lesions"):
        refuse_outside(workspace)

        def read(folder: Path, role: Role) -> _Make:
            return lambda progress: ingest_outside_volumes(workspace, settings, folder, role, progress=progress)

        taken = {
            "hosts": records["ingest"],
            "prepared": records["prepare_lesions"],
            "cohort": records["synthesize_lesions"],
            "evaluation": records["evaluate_lesions"],
        }
        role: Role = "ct" if records["prepare_lesions"].facts["modality"] == "CT" else "mr"
        if hosts is not None:
            taken["hosts"] = _shown(console, "read and check the hosts", read(hosts, role))
        if masks is not None:
            taken["masks"] = _shown(console, "read and check the masks", read(masks, "mask"))
        record = _shown(
            console,
            "set lesions into hosts",
            lambda progress: place_lesions(workspace, settings, taken, progress=progress),
        )
    show = {"lesions in hosts": record.path(workspace.root)} | {
        name.replace("_", " "): value for name, value in record.facts.items()
    }
    for name, value in show.items():
        text = ", ".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, dict) else value
        console.print(f"  {name:20} {text}", markup=False, highlight=False, soft_wrap=True)
    return record


def _shown(console: Console, title: str, make: _Make) -> StageRecord:
    """Take one step and show it."""
    display = display_for(console)
    display.begin("", title, 1, 1)
    began = time.monotonic()
    try:
        record = make(display.advance)
        display.end(record.cached, time.monotonic() - began)
    except BaseException:
        display.abandon()
        raise
    finally:
        display.close()
    return record
