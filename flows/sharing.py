"""What `scanloom export-model`, `import-model` and the option --model do."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from flows.requests import Options, load_settings
from flows.showing import displayed, show, show_facts
from flows.stage_commands import run_steps
from pipeline.errors import InputError
from pipeline.lease import held
from pipeline.records import StageRecord
from pipeline.workspace import Workspace

_EVALUATIONS: dict[str, str] = {"lesions": "evaluate_lesions", "mr_to_ct": "evaluate_mr_to_ct"}

_MADE: dict[str, str] = {"lesions": "synthesize_lesions", "mr_to_ct": "translate_mr_to_ct"}


def export_models(options: Options, console: Console, input_folder: Path | None) -> None:
    """Write the models of every track as folders to give away, judging them first.

    Raises:
        ScanloomError: a step cannot go on, or the release gate is closed.
    """
    from pipeline.model_sharing.outgoing import SHARED_FOLDER, export_lesion_model, export_mr_to_ct_model

    records = run_steps(options, _EVALUATIONS, console, input_folder=input_folder)
    settings, _ = load_settings(options)
    workspace = Workspace.open(options.workspace)
    with held(workspace, "share models"):
        for track in settings.tracks:
            names = (f"prepare_{track}", f"train_{track}", _MADE[track], _EVALUATIONS[track])
            export = export_lesion_model if track == "lesions" else export_mr_to_ct_model
            needed = [records[name] for name in names]
            record = displayed(console, f"export the model of {track}", partial(export, workspace, settings, *needed))
            show(console, f"shared model, {track}", record.path(workspace.root) / SHARED_FOLDER)
            show_facts(console, record, ("format", "license", "model_sha256", "largest_difference", "override"))


def take_in(options: Options, console: Console, source: Path) -> None:
    """Check a model from elsewhere and keep it in the workspace.

    Raises:
        InputError: it is not sound.
    """
    from pipeline.model_sharing.taking_in import checked, import_model

    settings, _ = load_settings(options)
    found = checked(source, settings)  # before a workspace is made
    workspace = Workspace.open(options.workspace)
    with held(workspace, "share models"):
        record = import_model(workspace, source, found)
    show(console, "imported model", record.path(workspace.root))
    show_facts(console, record, ("track", "model_sha256", "checked_against"))
    command = "synthesize" if record.facts["track"] == "lesions" else "translate"
    show(console, "use it", f"scanloom {command} --model {str(record.facts['model_sha256'])[:12]}")


def synthesize_with(options: Options, console: Console, digest: str) -> None:
    """Make a cohort with an imported generator; no scans are needed.

    Raises:
        InputError: no such model, or a recipe that it cannot make.
    """
    from pipeline.generate.stage import synthesize_lesions
    from pipeline.model_sharing.taking_in import imported_model

    settings, _ = load_settings(options)
    workspace = Workspace.open(options.workspace)
    with held(workspace, "share models"):
        model = imported_model(workspace, digest, "lesions")
        record = displayed(
            console, "make synthetic lesions", partial(synthesize_lesions, workspace, settings, None, model)
        )
    show(console, "synthetic lesions", record.path(workspace.root))
    show_facts(console, record, ("images", "per_class", "model_sha256"))


def translate_with(options: Options, console: Console, digests: Sequence[str], input_folder: Path | None) -> None:
    """Translate the workspace's MR with an imported translator, or an ensemble of several.

    Raises:
        InputError: no such model, or MR that were prepared otherwise than those it was trained on.
    """
    from pipeline.generate.stage import translate_mr_to_ct
    from pipeline.model_sharing.taking_in import imported_model

    records = run_steps(options, ("prepare_mr_to_ct",), console, input_folder=input_folder)
    settings, _ = load_settings(options)
    workspace = Workspace.open(options.workspace)
    with held(workspace, "share models"):
        models = [imported_model(workspace, digest, "mr_to_ct") for digest in digests]
        for model in models:
            _require_equal_inputs(model, records["prepare_mr_to_ct"])
        needed = (records["ingest"], records["prepare_mr_to_ct"], models[0])
        work = partial(translate_mr_to_ct, workspace, settings, *needed, others=models[1:])
        record = displayed(console, "make pseudo-CT", work)
    show(console, "pseudo-CT", record.path(workspace.root))
    show_facts(console, record, ("cases", "refused", "slices", "dicom_series", "model_sha256"))


def _require_equal_inputs(model: StageRecord, prepared: StageRecord) -> None:
    inputs = model.facts["inputs"]
    known = inputs if isinstance(inputs, dict) else {}
    odd = [name for name in ("unit", "spacing_mm", "ct_map") if known.get(name) != prepared.facts.get(name)]
    if odd:
        raise InputError(
            "A translator is fed what it was trained on.",
            found=", ".join(f"{name}: {prepared.facts.get(name)}" for name in odd),
            allowed=", ".join(f"{name}: {known.get(name, 'not told by the model')}" for name in odd),
            change="Set prepare.mr_to_ct.spacing_mm to that of the model; import whole folders, with inputs.json.",
        )
