"""What comes in: the same model, or a clear refusal; nothing that a stranger wrote is ever run."""

import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from flows.requests import Options
from flows.sharing import take_in
from pipeline.errors import InputError, QuarantineError, TrainingError
from pipeline.files import folder_manifest, read_json, write_json
from pipeline.generate.stage import synthesize_lesions
from pipeline.model_sharing.incoming import read_shared_model
from pipeline.model_sharing.taking_in import checked, import_model, imported_model
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.settings_loading import validate
from pipeline.trained_models import DIGEST, folder_digest, load_lesion_generator
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from tests.pipeline.model_sharing.conftest import Made

Shared = Callable[..., Path]
WEIGHTS = "generator_ema.safetensors"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "elsewhere", identity_key=bytes(range(32)))


def _resealed(folder: Path) -> Path:
    """The folder with a digest and a manifest that fit what lies there now, as an attacker would write them."""
    model = folder / "model"
    with suppress(ValueError, OSError, TypeError, AttributeError, RecursionError):  # what other tests wrote there
        card = read_json(model / "card.json")
        if not (model / "card.json").is_symlink():
            write_json(model / "card.json", card | {DIGEST: folder_digest(card, folder_manifest(model))})
    write_json(folder / "manifest.json", folder_manifest(folder, frozenset({"manifest.json"})))
    return folder


def _taken(workspace: Workspace, folder: Path) -> StageRecord:
    return import_model(workspace, folder, checked(folder, RunSettings()))


def _reason(folder: Path) -> str:
    with pytest.raises(QuarantineError) as caught:
        read_shared_model(folder)
    assert caught.value.advice
    return caught.value.reason


def test_an_imported_model_makes_the_images_of_its_exporter_bit_for_bit(
    workspace: Workspace, elsewhere: Workspace, made: "Made", shared: Shared
) -> None:
    settings = validate({"device": "cpu", "seed": 4, "generate": {"lesions": {"per_class": 5}}}, "a test")
    prepared, trained, *_ = made.lesions()
    own = synthesize_lesions(workspace, settings, prepared, trained)
    record = _taken(elsewhere, shared())
    again = synthesize_lesions(elsewhere, settings, None, record)
    assert again.facts["model_sha256"] == own.facts["model_sha256"] == record.facts["model_sha256"]
    images = [np.load(found.path(place.root) / "images.npy") for place, found in ((workspace, own), (elsewhere, again))]
    assert images[0].shape == (10, 1, 32, 32)
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("track", ["lesions", "mr_to_ct"])
def test_the_model_folder_comes_in_byte_for_byte_and_is_found_by_its_hash(
    elsewhere: Workspace, shared: Shared, track: Any
) -> None:
    folder = shared(track)
    record = _taken(elsewhere, folder)
    assert folder_manifest(record.path(elsewhere.root) / "model") == folder_manifest(folder / "model")
    assert record.facts["track"] == track
    assert record.facts["inputs"] == read_json(folder / "inputs.json")
    assert _taken(elsewhere, folder).cached
    digest = str(record.facts["model_sha256"])
    assert imported_model(elsewhere, digest[:8], track).key == record.key
    assert imported_model(elsewhere, "newest", track).key == record.key
    with pytest.raises(InputError, match="imported model is named"):
        imported_model(elsewhere, "0" * 12, track)
    with pytest.raises(InputError, match="imported model is named"):
        imported_model(elsewhere, digest, "mr_to_ct" if track == "lesions" else "lesions")


def test_the_bare_model_folder_of_a_training_is_taken_in_too(elsewhere: Workspace, shared: Shared) -> None:
    facts = _taken(elsewhere, shared() / "model").facts
    assert (facts["inputs"], facts["checked_against"]) == ({}, "digest in card.json")


@pytest.mark.parametrize(
    ("track", "name"),
    [
        ("lesions", WEIGHTS),
        ("lesions", "discriminator.safetensors"),
        ("lesions", "settings.json"),
        ("mr_to_ct", "mr_to_ct_ema.safetensors"),
    ],
)
def test_a_flipped_bit_in_a_bare_model_folder_is_refused(shared: Shared, track: str, name: str) -> None:
    folder = shared(track) / "model"
    whole = (folder / name).read_bytes()
    flipped = 0
    for place in range(3, len(whole), max(64, len(whole) // 24)):
        for bit in (0, 4):
            (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert _reason(folder) in {"CHANGED", "BAD_JSON"}
            flipped += 1
    assert flipped >= 8
    (folder / name).write_bytes(whole)
    assert read_shared_model(folder).checked_against == "digest in card.json"


def test_a_flipped_bit_is_noticed_at_load_too(shared: Shared) -> None:
    folder = shared() / "model"
    whole = (folder / WEIGHTS).read_bytes()
    load_lesion_generator(folder, torch.device("cpu"))
    (folder / WEIGHTS).write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])  # a low bit of the last weight
    with pytest.raises(TrainingError, match="differ from the digest"):
        load_lesion_generator(folder, torch.device("cpu"))


def test_a_changed_card_is_refused(shared: Shared) -> None:
    folder = shared() / "model"
    card = read_json(folder / "card.json")
    write_json(folder / "card.json", card | {"images_shown": 65})
    assert _reason(folder) == "CHANGED"


def test_weights_without_a_digest_are_taken_in_and_named_unverified(elsewhere: Workspace, shared: Shared) -> None:
    folder = shared()
    card = read_json(folder / "model" / "card.json")
    write_json(folder / "model" / "card.json", {name: value for name, value in card.items() if name != DIGEST})
    said = io.StringIO()
    take_in(Options(elsewhere.root), Console(file=said, width=200), folder / "model")
    assert "nothing: unverified" in said.getvalue()
    record = imported_model(elsewhere, "newest", "lesions")
    assert record.facts["checked_against"] == "nothing: unverified"
    load_lesion_generator(record.path(elsewhere.root) / "model", torch.device("cpu"))


class _Canary:
    """Pickled, it would make a file on being loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", [WEIGHTS, "discriminator.safetensors", "weights.pt", "settings.json", "card.json"])
def test_a_pickle_under_any_name_is_refused_and_never_run(
    tmp_path: Path, elsewhere: Workspace, shared: Shared, name: str
) -> None:
    folder = shared()
    canary = tmp_path / "canary"
    (folder / "model" / name).write_bytes(pickle.dumps(_Canary(canary)))
    with pytest.raises(InputError, match="taken in only if it is sound"):
        _taken(elsewhere, _resealed(folder))
    assert not canary.exists()


def test_a_flipped_bit_anywhere_in_the_model_is_noticed(shared: Shared) -> None:
    folder = shared()
    path = folder / "model" / WEIGHTS
    whole = path.read_bytes()
    for place in (4, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        assert _reason(folder) == "CHANGED"
    path.write_bytes(whole)
    (folder / "inputs.json").write_text(json.dumps({"pixel_mm": 2.0}))
    assert _reason(folder) == "CHANGED"


def test_a_missing_network_is_noticed(shared: Shared) -> None:
    folder = shared()
    (folder / "model" / "discriminator.safetensors").unlink()
    assert _reason(folder) == "CHANGED"
    (folder / "model" / WEIGHTS).unlink()
    assert _reason(_resealed(folder)) == "UNEXPECTED_FILE"


def _header(length: int, text: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text + rest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        _header(1 << 62, b"{}"),
        _header(100 << 20, b" " * 64),
        _header(2, b"[]"),
        _header(2, b"{}", b"leftover"),
        _header(12, b'{"a": broken'),
        _header(64, b'{"a":' * 12 + b"1" + b"  " * 2),
    ],
    ids=["empty", "short", "2^62", "100 MiB", "list", "leftover", "broken", "nested"],
)
def test_headers_that_lie_about_the_file_are_refused_before_any_library_reads_them(
    shared: Shared, content: bytes
) -> None:
    folder = shared()
    (folder / "model" / WEIGHTS).write_bytes(content)
    assert _reason(_resealed(folder)) == "BAD_HEADER"


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F128"},
        {"shape": [1 << 40, 1 << 40]},
        {"shape": [-1]},
        {"shape": "many"},
        {"data_offsets": [0, 1 << 50]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": None},
    ],
    ids=str,
)
def test_tensors_that_do_not_fill_their_file_are_refused(shared: Shared, change: dict[str, Any]) -> None:
    folder = shared()
    path = folder / "model" / WEIGHTS
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name] |= change
    text = json.dumps(header).encode()
    path.write_bytes(_header(len(text), text, content[8 + length :]))
    assert _reason(_resealed(folder)) == "BAD_HEADER"


def _with_settings(folder: Path, **changes: Any) -> Path:
    path = folder / "model" / "settings.json"
    write_json(path, read_json(path) | changes)
    return _resealed(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 8}, "OTHER_NETWORK"),
        ({"latent_size": 9}, "OTHER_NETWORK"),
        ({"size_px": 64}, "OTHER_NETWORK"),
        ({"classes": ["one"]}, "OTHER_NETWORK"),
        ({"family": "dcgan_classic"}, "OTHER_NETWORK"),
        ({"family": "stylegan"}, "BAD_SETTINGS"),
        ({"size_px": 48}, "BAD_SETTINGS"),
        ({"width": 10**9}, "BAD_SETTINGS"),
        ({"width": -1}, "BAD_SETTINGS"),
        ({"width": "4; import os"}, "BAD_SETTINGS"),
        ({"classes": ["=cmd|' /C calc'!A0"]}, "BAD_SETTINGS"),
        ({"classes": []}, "BAD_SETTINGS"),
        ({"attributes": [{"name": "=1+1"}]}, "BAD_SETTINGS"),
        ({"attributes": [{"name": "a"}] * 33}, "BAD_SETTINGS"),
        ({"attributes": [{"name": "size_mm"}]}, "OTHER_NETWORK"),
        ({"_target_": "os.system"}, "BAD_SETTINGS"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_weights_or_any_network_are_refused(
    shared: Shared, changes: dict[str, Any], reason: str
) -> None:
    assert _reason(_with_settings(shared(), **changes)) == reason


def test_weights_of_another_architecture_are_refused(shared: Shared) -> None:
    lesions, translator = shared(), shared("mr_to_ct")
    shutil.copyfile(translator / "model" / "mr_to_ct_ema.safetensors", lesions / "model" / WEIGHTS)
    assert _reason(_resealed(lesions)) == "OTHER_NETWORK"
    assert _reason(_with_settings(translator, generator="resnet")) == "OTHER_NETWORK"


@pytest.mark.parametrize("name", [WEIGHTS, "discriminator.safetensors"])
def test_weights_that_are_no_numbers_are_refused(shared: Shared, name: str) -> None:
    folder = shared()
    tensors = load_file(folder / "model" / name)
    first = next(key for key, value in tensors.items() if value.is_floating_point())
    tensors[first] = torch.full_like(tensors[first], float("nan"))
    save_file(tensors, folder / "model" / name)
    assert _reason(_resealed(folder)) == "NON_FINITE"


def test_links_are_not_followed(tmp_path: Path, shared: Shared) -> None:
    folder = shared()
    secret = tmp_path / "secret.json"
    shutil.copyfile(folder / "model" / "card.json", secret)
    (folder / "model" / "card.json").unlink()
    (folder / "model" / "card.json").symlink_to(secret)
    assert _reason(_resealed(folder)) == "NOT_PLAIN_FILE"


def test_json_beyond_its_limits_is_refused(shared: Shared) -> None:
    folder = shared()
    for content in (b"[" * 100_000, b'{"a": "' + b"x" * (2 << 20) + b'"}', b"[]", b"\xff\xfe"):
        (folder / "model" / "card.json").write_bytes(content)
        assert _reason(_resealed(folder)) == "BAD_JSON"


def test_inputs_are_kept_by_name_and_within_bounds(shared: Shared) -> None:
    folder = shared()
    told = read_json(folder / "inputs.json")
    write_json(folder / "inputs.json", told | {"note": "ignore me"})
    assert read_shared_model(_resealed(folder)).inputs == told
    write_json(folder / "inputs.json", told | {"unit": "HU" * 20_000})
    assert _reason(_resealed(folder)) == "BAD_JSON"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert _reason(tmp_path) == "NO_MODEL"
    assert _reason(tmp_path / "nowhere") == "NO_MODEL"


def test_a_refusal_quotes_nothing_of_what_a_stranger_wrote(elsewhere: Workspace, shared: Shared) -> None:
    folder = _with_settings(shared(), classes=["John Doe"], note="Jane Roe")
    (folder / "model" / "Max Mustermann.pt").write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        _taken(elsewhere, folder)
    assert not any(name in str(caught.value) for name in ("Doe", "Roe", "Mustermann"))
