"""What `scanloom synthesize --query` does: read a request, show the recipe, ask, make the cohort."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import typer
from rich.console import Console

from flows.requests import Options
from flows.stage_commands import run_steps
from pipeline.generate.query import parse_request
from pipeline.generate.query_terms import Request, Vocabulary, request_text
from pipeline.lesion_attributes import attributes_from
from pipeline.records import StageRecord


def synthesize_requested(
    options: Options, console: Console, query: str, *, yes: bool, input_folder: Path | None = None
) -> Mapping[str, StageRecord] | None:
    """Make the cohort that a request in words asks for.

    Classes and attributes are those of the prepared set, so that a request is refused before anything is trained.

    Args:
        options: workspace, settings, debug; the recipe in the settings is replaced.
        console: where the recipe is shown.
        query: the request.
        yes: do not ask.
        input_folder: the scans; None goes on with those ingested last.

    Returns:
        Records by step; None where the recipe was declined.

    Raises:
        InputError: the request is not understood.
    """
    prepared = run_steps(options, ("prepare_lesions",), console, input_folder=input_folder)["prepare_lesions"]
    classes = tuple(cast("list[str]", prepared.facts["classes"]))
    vocabulary = Vocabulary(classes, attributes_from(prepared.facts))
    request = parse_request(query, vocabulary)
    _show(console, request, vocabulary)
    if not yes and not typer.confirm("Make this cohort?"):
        console.print("Nothing was made.")
        return None
    asked = replace(options, overrides=(*options.overrides, *_overrides(request)))
    return run_steps(asked, ("synthesize_lesions",), console, input_folder=input_folder)


def _show(console: Console, request: Request, vocabulary: Vocabulary) -> None:
    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    console.print("\nRecipe", style="bold")
    for line in request.lines:
        named = ", ".join(f"{name} {_words(value)}" for name, value in line.attributes.items())
        show(f"  {line.count:>6}  {line.lesion_class}{f', {named}' if named else ''}")
    show(f"  {sum(line.count for line in request.lines):>6}  in all")
    show(f"  in full: {request_text(request, vocabulary)}")


def _words(value: object) -> str:
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, tuple) else str(value)


def _overrides(request: Request) -> list[str]:
    """The request as settings; what it does not speak of stays as it is."""
    lines = [line.model_dump(mode="json") for line in request.lines]
    said = ["generate.lesions.per_class=null", f"generate.lesions.lines={json.dumps(lines)}"]
    said += [] if request.truncation is None else [f"generate.lesions.truncation={request.truncation!r}"]
    return said + ([] if request.seed is None else [f"generate.lesions.seed={request.seed}"])
