"""What `scanloom forget` does: show what would go, ask, do it."""

import sys
from pathlib import Path

import typer
from rich.console import Console

from flows.information import existing_workspace
from flows.words import workspace_option
from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError
from pipeline.forget import Forgetting, forget, plan_forgetting
from pipeline.lease import held
from pipeline.workspace import Workspace


def forget_subject(
    console: Console, folder: Path, subject: str | None, *, patient_id: bool, yes: bool, models: bool
) -> None:
    """Forget one subject.

    Args:
        console: where the listing goes; it shows pseudonyms only.
        folder: the workspace.
        subject: pseudonym; None with ``patient_id``.
        patient_id: ask for the PatientID instead, without showing it.
        yes: do not ask.
        models: delete trained models and synthetic cohorts too.

    Raises:
        InputError: neither or both of subject and PatientID, or a subject that is not there.
    """
    workspace = existing_workspace(folder)
    if (subject is None) != patient_id:
        raise InputError(
            "One subject is forgotten at a time.",
            found="both a pseudonym and --patient-id" if patient_id else "neither a pseudonym nor --patient-id",
            allowed="a pseudonym (sub-...), or --patient-id, which asks for the PatientID",
            change=f"Run, for example: scanloom forget sub-4f1c09ab2e{workspace_option(folder)}",
        )
    name = subject or Pseudonymizer(workspace.identity_key()).subject(_asked_patient_id())
    with held(workspace, "forget"):
        plan = plan_forgetting(workspace, name)
        _print_plan(console, workspace, plan, models=models)
        if not yes and not typer.confirm("Delete all this for good?"):
            console.print("Nothing was changed.")
            return
        forget(workspace, plan, models=models)
    console.print(f"{name} is forgotten; later ingests into this workspace refuse it.", highlight=False)
    if (plan.trained or plan.cohorts) and not models:
        console.print("The models and cohorts above stay. Delete them too with --models.", style="yellow")


def _asked_patient_id() -> str:
    """The PatientID from a hidden prompt, or from standard input where that is no terminal."""
    if sys.stdin.isatty():
        return str(typer.prompt("PatientID", hide_input=True)).strip()
    return sys.stdin.readline().strip()


def _print_plan(console: Console, workspace: Workspace, plan: Forgetting, *, models: bool) -> None:
    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def name(folder: Path) -> str:
        return folder.relative_to(workspace.root).as_posix()

    show(f"Forgetting {plan.subject} means:")
    for folder, series in plan.catalogs.items():
        show(f"  rewrite  {name(folder)}, without {series} series")
    for folder in plan.derived:
        show(f"  delete   {name(folder)}")
    if plan.crosswalks:
        show("  erase    what leads to it in identity/")
    for folder in (*plan.trained, *plan.cohorts):
        kept = "keep     " if not models else "delete   "
        show(
            f"  {kept}{name(folder)}, which {'saw it' if folder in plan.trained else 'was made by a model that saw it'}"
        )
    if plan.nothing:
        show("  nothing: no trace of it is left")
