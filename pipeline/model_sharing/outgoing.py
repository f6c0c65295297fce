"""The export_model stages: a trained model with its evaluation in; a folder that can be given away out.

``shared/`` holds ``model/`` (an exact copy of the training's: settings, safetensors, card), ``inputs.json`` (what the
network must be fed), ``model_card.md`` and ``.json``, the program in the format chosen, and ``manifest.json``. Whoever
gets it runs the program, or takes the model in with `scanloom import-model`.
"""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.export.dataset import Release, read_release
from pipeline.files import folder_manifest, read_json, write_json, write_text
from pipeline.model_sharing.incoming import INPUT_FACTS, INPUTS_FILE, MANIFEST_FILE, MODEL_FOLDER
from pipeline.model_sharing.model_card import Training, card_markdown, data_summary, model_card
from pipeline.model_sharing.monai_bundle import (
    PROGRAM,
    bundle_metadata,
    lesion_inference,
    tensor_format,
    translator_inference,
    write_bundle_configs,
)
from pipeline.model_sharing.programs import lesion_network, translator_network, write_onnx_program, write_torch_program
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import read_results
from pipeline.settings import RunSettings, ShareSettings, Track
from pipeline.stage_runner import RECORD_FILE, Stage, StageContext, run_stage
from pipeline.trained_models import CARD_FILE, DISCRIMINATOR, SETTINGS_FILE, model_hash
from pipeline.workspace import Workspace

SHARED_FOLDER = "shared"
_MODULE = "pipeline.model_sharing.outgoing"
_CARD = "model_card"
_LOAD = {
    "bundle": "from monai.bundle import run\n\n"
    'run(config_file="configs/inference.json", meta_file="configs/metadata.json", bundle_root=".")',
    "torch_export": 'import torch\n\nnetwork = torch.export.load("program.pt2").module()',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("program.onnx")',
}
_BACKBONE = (
    "from pathlib import Path\n\nfrom pipeline.trained_models import load_backbone\n\n"
    'backbone = load_backbone(Path("model"))  # images (N, 1, side, side) in [-1, 1] -> features'
)


class SharedSettings(BaseModel, frozen=True):
    """What enters the key of a shared model."""

    share: ShareSettings
    release_override: str | None = None


def export_lesion_model(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    trained: StageRecord,
    cohort: StageRecord,
    evaluation: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the lesion GAN as a folder to give away, if the release gate lets its cohort go.

    Raises:
        InputError: the gate is closed and no reason to pass it was given; the evaluation is of another model.
        TrainingError: the program does not give what the network gives.
    """
    own = SharedSettings(share=settings.share, release_override=settings.export.release_override)

    def body(context: StageContext) -> dict[str, JsonValue]:
        _require_lineage(context.inputs, trained, cohort)
        release = read_release(context.inputs["evaluation"], own.release_override)
        _require_release(release)
        return _share(context, "lesions", own.share, release)

    records = {"prepared": prepared, "trained": trained, "cohort": cohort, "evaluation": evaluation}
    stage = Stage("export_lesion_model", _MODULE, body)
    return run_stage(workspace, stage, own, records=records, progress=progress)


def export_mr_to_ct_model(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    trained: StageRecord,
    pseudo_ct: StageRecord,
    evaluation: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the MR-to-CT translator as a folder to give away.

    Raises:
        InputError: the evaluation is of another model.
        TrainingError: the program does not give what the network gives.
    """
    own = SharedSettings(share=settings.share)

    def body(context: StageContext) -> dict[str, JsonValue]:
        _require_lineage(context.inputs, trained, pseudo_ct)
        return _share(context, "mr_to_ct", own.share, None)

    records = {"prepared": prepared, "trained": trained, "pseudo_ct": pseudo_ct, "evaluation": evaluation}
    stage = Stage("export_mr_to_ct_model", _MODULE, body)
    return run_stage(workspace, stage, own, records=records, progress=progress)


def _require_release(release: Release) -> None:
    if not release.released:
        raise InputError(
            "A model leaves only when the release gate lets its synthetic images go.",
            found=release.reason,
            allowed="an open gate, or a reason to pass it, which is stamped on the card",
            change='Train with more data or fewer images, or set export.release_override="why".',
        )


def _require_lineage(inputs: Mapping[str, Path], trained: StageRecord, made: StageRecord) -> None:
    """The evaluation must be of what this model made: a card must not carry another model's figures."""
    made_folder = inputs["cohort"] if "cohort" in inputs else inputs["pseudo_ct"]
    chain = ((inputs["evaluation"], made), (made_folder, trained))
    for folder, needed in chain:
        if needed.content_sha256 not in read_json(folder / RECORD_FILE)["inputs"].values():
            raise InputError(
                "The card of a model tells how that model scored.",
                found=f"an output of {folder.parent.name} that was not made from this {needed.stage}",
                allowed="records of one run",
                change="Give the records that belong together.",
            )


def _share(context: StageContext, track: Track, share: ShareSettings, release: Release | None) -> dict[str, JsonValue]:
    target = context.folder / SHARED_FOLDER
    source = context.inputs["trained"] / MODEL_FOLDER
    shutil.copytree(source, target / MODEL_FOLDER)
    facts = read_json(context.inputs["prepared"] / "set.json")
    write_json(target / INPUTS_FILE, {name: facts[name] for name in INPUT_FACTS if name in facts})
    network, inputs = (lesion_network if track == "lesions" else translator_network)(source)
    difference = _write_program(network, inputs, share.format, target)
    described = read_json(source / SETTINGS_FILE)
    digest = model_hash(source)
    about = {
        "license": share.license,
        "format": share.format,
        "largest_difference": difference,
        "model_sha256": digest,
        "versions": {name: version(name) for name in ("scanloom", "torch", "monai", "numpy")},
        "how_to_load": _how_to_load(share.format, source),
    }
    training = Training(
        read_json(source / CARD_FILE),
        described,
        data_summary(facts | context.facts["prepared"]),
        read_json(context.inputs["trained"] / SETTINGS_FILE)[track],
    )
    card = model_card(track, training, read_results(context.inputs["evaluation"]), release, about)
    write_json(target / f"{_CARD}.json", card)
    write_text(target / f"{_CARD}.md", card_markdown(card))
    if share.format == "bundle":
        _write_bundle(target, track, card, inputs)
    write_json(target / MANIFEST_FILE, folder_manifest(target))
    return {
        "track": track,
        "format": share.format,
        "license": share.license,
        "largest_difference": difference,
        "model_sha256": digest,
        "override": None if release is None else release.override,
    }


def _write_program(network: nn.Module, inputs: dict[str, Tensor], form: str, target: Path) -> float:
    if form == "onnx":
        return write_onnx_program(network, inputs, target / "program.onnx")
    return write_torch_program(network, inputs, target / (PROGRAM if form == "bundle" else "program.pt2"))


def _write_bundle(target: Path, track: Track, card: dict[str, Any], inputs: dict[str, Tensor]) -> None:
    network = card["network"]
    if track == "lesions":
        inference = lesion_inference(network["latent_size"])
        fed: dict[str, Any] = {"latent": {"type": "vector", "dtype": "float32", "length": network["latent_size"]}}
        fed["classes"] = {"type": "index", "dtype": "int64", "classes": network["classes"]}
        given = tensor_format(network["channels"], network["size_px"], "synthetic lesion image")
    else:
        inference = translator_inference()
        side = network["patch_px"]
        fed = {"stack": tensor_format(inputs["stack"].shape[1], side, "MR slices and coordinates")}
        given = tensor_format(network["slices"], side, "CT slices in network units")
    metadata = bundle_metadata(card, card["versions"], {"inputs": fed, "outputs": {"images": given}})
    write_bundle_configs(target, inference, metadata)
    (target / "docs").mkdir()
    shutil.copyfile(target / f"{_CARD}.md", target / "docs" / "README.md")
    write_text(target / "LICENSE", f"{card['license']}\n")


def _how_to_load(form: str, model: Path) -> list[str]:
    lines = ["Run the program:", "", "```python", *_LOAD[form].splitlines(), "```"]
    lines += ["", "Go on with it in scanloom: `scanloom import-model FOLDER`."]
    if (model / f"{DISCRIMINATOR}.safetensors").is_file() and read_json(model / SETTINGS_FILE)["family"] == "dcgan":
        lines += ["", "The discriminator as a pretrained backbone, with scanloom installed:", ""]
        lines += ["```python", *_BACKBONE.splitlines(), "```"]
    return lines
