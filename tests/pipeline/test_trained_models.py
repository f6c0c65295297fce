import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.lesion_gan.discriminator import DCGANDiscriminator
from pipeline.errors import TrainingError
from pipeline.trained_models import (
    DISCRIMINATOR,
    LESION_GENERATOR,
    MR_TO_CT,
    LesionGeneratorSettings,
    TranslatorSettings,
    build_lesion_generator,
    build_translator,
    load_backbone,
    load_lesion_generator,
    load_translator,
    model_hash,
    save_model,
)

CPU = torch.device("cpu")
LESIONS = LesionGeneratorSettings(family="dcgan", size_px=32, channels=1, classes=("a", "b"), latent_size=8, width=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def translator_settings(generator="unet", slices=1, coordinates=True):
    return TranslatorSettings(generator=generator, width=4, slices=slices, coordinates=coordinates, patch_px=32)


def shaken(network: nn.Module) -> nn.Module:
    """The network with every buffer and weight changed, so that a load that forgets one shows."""
    rng = seeded(9)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) * 0.1)
    return network


def test_a_lesion_generator_makes_the_same_images_after_a_round_trip(tmp_path):
    network = shaken(build_lesion_generator(LESIONS, seeded())).eval()
    save_model(tmp_path / "model", LESIONS, {LESION_GENERATOR: network}, {"purpose": "test"})
    loaded, settings = load_lesion_generator(tmp_path / "model", CPU)
    latent, classes = torch.randn(5, 8, generator=seeded()), torch.tensor([0, 1, 1, 0, 1])
    with torch.no_grad():
        assert torch.equal(loaded(latent, classes), network(latent, classes))
    assert settings == LESIONS
    assert not loaded.training


@pytest.mark.parametrize("generator", ["unet", "resnet", "light", "resnet_2017"])
@pytest.mark.parametrize(("slices", "coordinates"), [(1, True), (3, False), (5, True)])
def test_a_translator_gives_the_same_slices_after_a_round_trip(tmp_path, generator, slices, coordinates):
    settings = translator_settings(generator, slices, coordinates)
    network = shaken(build_translator(settings, seeded())).eval()
    save_model(tmp_path / "model", settings, {MR_TO_CT: network}, {})
    loaded, found = load_translator(tmp_path / "model", CPU)
    stack = torch.rand(1, slices + 3 * coordinates, 32, 32, generator=seeded()) * 2 - 1
    with torch.no_grad():
        out = loaded(stack)
        assert torch.equal(out, network(stack))
    assert out.shape == (1, slices, 32, 32)
    assert found == settings


def test_weights_of_another_architecture_are_refused(tmp_path):
    network = build_translator(translator_settings(slices=1), seeded())
    save_model(tmp_path / "model", translator_settings(slices=3), {MR_TO_CT: network}, {})
    with pytest.raises(TrainingError, match="fit the network"):
        load_translator(tmp_path / "model", CPU)


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    network = build_lesion_generator(LESIONS, seeded())
    save_model(tmp_path / "model", LESIONS, {LESION_GENERATOR: network}, {})
    (tmp_path / "model" / f"{LESION_GENERATOR}.safetensors").write_bytes(b"\x80\x04not weights")
    with pytest.raises(TrainingError, match="readable safetensors"):
        load_lesion_generator(tmp_path / "model", CPU)


def test_settings_with_unknown_keys_are_refused(tmp_path):
    network = build_lesion_generator(LESIONS, seeded())
    save_model(tmp_path / "model", LESIONS, {LESION_GENERATOR: network}, {})
    path = tmp_path / "model" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"loader": "os.system"}))
    with pytest.raises(ValidationError, match="loader"):
        load_lesion_generator(tmp_path / "model", CPU)


def test_the_hash_changes_with_any_byte_of_any_file(tmp_path):
    folder = tmp_path / "model"
    digest = save_model(folder, LESIONS, {LESION_GENERATOR: build_lesion_generator(LESIONS, seeded())}, {"a": 1})
    assert digest == model_hash(folder)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert model_hash(folder) != digest, (path.name, place)
        path.write_bytes(content)
    assert model_hash(folder) == digest
    (folder / "one-more").write_bytes(b"")
    assert model_hash(folder) != digest


def test_equal_networks_give_equal_files(tmp_path):
    hashes = [
        save_model(tmp_path / name, LESIONS, {LESION_GENERATOR: build_lesion_generator(LESIONS, seeded())}, {})
        for name in ("one", "two")
    ]
    assert hashes[0] == hashes[1]
    other = save_model(tmp_path / "three", LESIONS, {LESION_GENERATOR: build_lesion_generator(LESIONS, seeded(1))}, {})
    assert other != hashes[0]


@pytest.mark.parametrize("spectral", [True, False])
def test_the_discriminator_comes_back_as_a_backbone(tmp_path, spectral):
    judge = DCGANDiscriminator(32, seeded(2), num_classes=2, width=4, spectral=spectral)
    save_model(tmp_path / "model", LESIONS, {DISCRIMINATOR: judge}, {})
    images = torch.rand(3, 1, 32, 32, generator=seeded()) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(tmp_path / "model")(images), judge.eval().features(images, 3))


def test_a_classic_discriminator_is_no_backbone(tmp_path):
    save_model(tmp_path / "model", LESIONS.model_copy(update={"family": "dcgan_classic"}), {}, {})
    with pytest.raises(ValueError, match="one image alone"):
        load_backbone(tmp_path / "model")


def test_a_damaged_discriminator_is_refused(tmp_path):
    save_model(tmp_path / "model", LESIONS, {}, {})
    (tmp_path / "model" / f"{DISCRIMINATOR}.safetensors").write_bytes(b"\x80\x04not weights")
    with pytest.raises(TrainingError, match="readable safetensors"):
        load_backbone(tmp_path / "model")
