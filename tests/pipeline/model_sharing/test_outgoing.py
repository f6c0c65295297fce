"""What leaves: programs that give what the network gives, a card that tells the truth, and nothing past the gate."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pipeline.errors import InputError, TrainingError
from pipeline.files import folder_manifest, read_json
from pipeline.lesion_attributes import LesionAttribute
from pipeline.model_sharing.model_card import card_markdown
from pipeline.model_sharing.outgoing import export_lesion_model, export_mr_to_ct_model
from pipeline.model_sharing.programs import lesion_network, write_torch_program
from pipeline.trained_models import load_lesion_generator, load_translator, model_hash
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from tests.pipeline.model_sharing.conftest import Made

CPU = torch.device("cpu")
Shared = Callable[..., Path]
Programs = Callable[[str, str], Path]


def _latent(seeds: list[int], size: int) -> torch.Tensor:
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.mark.slow
def test_a_torch_program_of_the_lesion_generator_gives_its_images(program_of: Programs) -> None:
    folder = program_of("lesions", "torch_export")
    network, _ = load_lesion_generator(folder / "model", CPU)
    program = torch.export.load(folder / "program.pt2").module()
    latent, classes = _latent([5, 6, 7], 8), torch.tensor([0, 1, 1])
    with torch.no_grad():
        torch.testing.assert_close(program(latent, classes), network(latent, classes), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_torch_program_of_the_translator_gives_its_slices(program_of: Programs) -> None:
    folder = program_of("mr_to_ct", "torch_export")
    network, _ = load_translator(folder / "model", CPU)
    program = torch.export.load(folder / "program.pt2").module()
    stack = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(program(stack), network(stack), rtol=0, atol=1e-6)


@pytest.mark.parametrize("track", ["lesions", pytest.param("mr_to_ct", marks=pytest.mark.slow)])
def test_onnx_runtime_gives_what_the_network_gives_and_the_card_says_how_nearly(
    program_of: Programs, track: str
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder = program_of(track, "onnx")
    session = runtime.InferenceSession(folder / "program.onnx", providers=["CPUExecutionProvider"])
    network: Any
    if track == "lesions":
        network, _ = load_lesion_generator(folder / "model", CPU)
        inputs = {"latent": _latent([1, 2, 3, 4, 5], 8), "classes": torch.tensor([1, 0, 1, 0, 1])}
    else:
        network, _ = load_translator(folder / "model", CPU)
        inputs = {"stack": torch.rand(5, 4, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1}
    given = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    with torch.no_grad():
        wanted = network(*inputs.values()).numpy()
    assert np.abs(given - wanted).max() <= 1e-5
    assert read_json(folder / "model_card.json")["largest_difference"] <= 1e-5


_RUN = """
import sys, warnings
warnings.simplefilter("ignore")
from monai.bundle import run
run(config_file=f"{sys.argv[1]}/configs/inference.json", meta_file=f"{sys.argv[1]}/configs/metadata.json",
    bundle_root=sys.argv[1], workflow_type=None, **eval(sys.argv[2]))
assert not any(name.split(".")[0] in {"pipeline", "models", "flows"} for name in sys.modules)
"""


def _run_bundle(folder: Path, **override: Any) -> np.ndarray[Any, Any]:
    """What the bundle writes, run by MONAI in a process and a folder where scanloom cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder), repr(override)],
        cwd=folder.parent,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(folder / "images.npy", allow_pickle=False)


@pytest.mark.slow
def test_monai_runs_the_bundle_of_a_lesion_generator_and_gets_the_images_of_its_seeds(
    program_of: Programs,
) -> None:
    folder = program_of("lesions", "bundle")
    images = _run_bundle(folder, count=3, class_index=1, first_seed=77, truncation=0.5)
    network, _ = load_lesion_generator(folder / "model", CPU)
    with torch.no_grad():
        wanted = network(_latent([77, 78, 79], 8) * 0.5, torch.ones(3, dtype=torch.long)).numpy()
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_monai_runs_the_bundle_of_a_translator(program_of: Programs) -> None:
    folder = program_of("mr_to_ct", "bundle")
    stack = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    np.save(folder / "stack.npy", stack.numpy())
    network, _ = load_translator(folder / "model", CPU)
    with torch.no_grad():
        np.testing.assert_allclose(_run_bundle(folder), network(stack).numpy(), rtol=0, atol=1e-6)


def test_a_bundle_has_the_files_and_keys_of_the_specification(shared: Shared) -> None:
    folder = shared("mr_to_ct", "bundle")
    assert {"configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE"} <= {
        path.relative_to(folder).as_posix() for path in folder.rglob("*")
    }
    metadata = read_json(folder / "configs" / "metadata.json")
    for key in (
        "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors",
        "copyright", "network_data_format",
    ):  # fmt: skip
        assert metadata[key], key
    assert metadata["network_data_format"]["inputs"]["stack"]["num_channels"] == 4
    assert metadata["network_data_format"]["outputs"]["images"]["spatial_shape"] == [32, 32]


def test_the_model_is_copied_byte_for_byte_and_the_manifest_names_every_file(
    workspace: Workspace, made: "Made", without_program: None
) -> None:
    records = made.lesions()
    record = export_lesion_model(workspace, made.settings(), *records)
    folder = record.path(workspace.root) / "shared"
    own = model_hash(records[1].path(workspace.root) / "model")
    assert model_hash(folder / "model") == own == record.facts["model_sha256"]
    assert read_json(folder / "manifest.json") == folder_manifest(folder, frozenset({"manifest.json"}))


@pytest.mark.parametrize("track", ["lesions", "mr_to_ct"])
def test_the_card_says_what_it_must_and_names_no_subject(shared: Shared, track: str) -> None:
    folder = shared(track)
    card = read_json(folder / "model_card.json")
    for key in ("intended_use", "scope", "limits", "training_data", "network", "metrics", "verdicts", "license"):
        assert card[key], key
    text = (folder / "model_card.md").read_text()
    for words in ("Research use only", "CC-BY-NC-4.0", "A figure", "0.75", "No difference shown", "Few subjects"):
        assert words in text
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes(), path.name


def test_a_card_is_written_for_people_and_no_word_of_it_starts_markup() -> None:
    card = {
        "title": "T", "intended_use": "use", "scope": "s", "limits": ["l"], "gate": None, "license": "CC0-1.0",
        "format": "onnx", "largest_difference": 1e-7, "model_sha256": "ab", "how_to_load": [], "warnings": [],
        "training_data": {"classes": ["a|b", "<i>"], "counts": {"train": {"x": 2, "y": 3}}, "pixel_mm": None},
        "network": {"mirror": False, "attributes": []}, "training": {"settings": {"betas": [0.0, 0.99]}},
        "metrics": [{"text": "a | b", "value": None, "reference": 0.5, "reference_text": "chance"}],
        "verdicts": [{"sentence": "![x](http://x) `run`"}],
    }  # fmt: skip
    text = card_markdown(card)
    for line in (
        r"- classes: a\|b, \<i\>",
        "- counts: train: (x: 2; y: 3)",
        "- pixel_mm: not stated",
        "- mirror: no",
        "- attributes: none",
        "- betas: 0.0, 0.99",
        r"| a \| b | not applicable | 0.5 (chance) |",
        r"- !\[x\](http://x) \`run\`",
    ):
        assert line in text.splitlines(), line


def test_a_closed_gate_keeps_the_model_in_and_an_override_stamps_its_card(
    workspace: Workspace, made: "Made", without_program: None
) -> None:
    records = made.lesions(blocked=True)
    with pytest.raises(InputError, match="9 of 10 images are copies"):
        export_lesion_model(workspace, made.settings(), *records)
    passed = made.settings(export={"release_override": "phantoms only, no patients"})
    record = export_lesion_model(workspace, passed, *records)
    folder = record.path(workspace.root) / "shared"
    assert record.facts["override"] == "phantoms only, no patients"
    text = (folder / "model_card.md").read_text()
    assert "OVERRIDDEN" in text
    assert "phantoms only, no patients" in text
    assert json.loads((folder / "model_card.json").read_text())["gate"]["blocked"] is True


def test_a_card_never_carries_the_figures_of_another_model(workspace: Workspace, made: "Made") -> None:
    prepared, trained, cohort, _ = made.lesions()
    *_, other = made.lesions(model=made.generator.model_copy(update={"latent_size": 9}))
    with pytest.raises(InputError, match="how that model scored"):
        export_lesion_model(workspace, made.settings(), prepared, trained, cohort, other)
    records = made.mr_to_ct()
    _, another, *_ = made.mr_to_ct(made.translator.model_copy(update={"width": 5}))
    with pytest.raises(InputError, match="how that model scored"):
        export_mr_to_ct_model(workspace, made.settings(), records[0], another, *records[2:])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dcgan_classic", "dcgan", "virtual batch"])
def test_other_generators_are_exported_too_with_their_attributes_left_open(
    workspace: Workspace, made: "Made", family: Any
) -> None:
    attributes = (LesionAttribute(name="sequence", levels=("T1", "T2")), LesionAttribute(name="size_mm", high=9.0))
    changes = {"family": family, "attributes": attributes if family == "dcgan" else ()}
    if family == "virtual batch":
        changes |= {"family": "dcgan", "virtual_batch": 6}
    records = made.lesions(model=made.generator.model_copy(update=changes))
    folder = export_lesion_model(workspace, made.settings(), *records).path(workspace.root) / "shared"
    network, _ = load_lesion_generator(folder / "model", CPU)
    program = torch.export.load(folder / "program.pt2").module()
    latent, classes = _latent([5, 6, 7], 8), torch.tensor([0, 1, 1])
    with torch.no_grad():
        torch.testing.assert_close(program(latent, classes), network(latent, classes), rtol=0, atol=1e-6)
    assert (folder / "model" / "discriminator.safetensors").exists() is (family != "dcgan_classic")
    assert ("load_backbone" in (folder / "model_card.md").read_text()) is (family != "dcgan_classic")


def test_a_program_that_differs_from_its_network_is_not_written_off_as_equal(
    tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inputs = lesion_network(shared() / "model")
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    monkeypatch.setattr(torch.export, "save", lambda *_: None)
    monkeypatch.setattr(torch.export, "load", lambda path: _Halved(network))
    with pytest.raises(TrainingError, match="must give what the network gives"):
        write_torch_program(network, inputs, tmp_path / "program.pt2")


class _Halved:
    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    def module(self) -> Callable[..., torch.Tensor]:
        return lambda *inputs: self._network(*inputs) / 2
