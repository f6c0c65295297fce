"""Networks out of a script: nothing else of it runs, and its loop is our step's mathematics."""

import pytest
import torch

from benchmarks.lesion_gan import give_weights, script_step
from benchmarks.script_networks import has_networks, networks_of
from models.lesion_gan.classic import ClassicDiscriminator, ClassicGenerator
from models.lesion_gan.step import LesionGANStep, LesionStepSettings

SCRIPT = """
import argparse
import a_package_that_is_not_there
options = argparse.ArgumentParser().parse_args(["--missing"])

class Generator(nn.Module):
    def __init__(self, ngpu):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, 4 * ngf, 4, bias=False), nn.BatchNorm2d(4 * ngf), nn.ReLU(),
            nn.ConvTranspose2d(4 * ngf, 2 * ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * ngf), nn.ReLU(),
            nn.ConvTranspose2d(2 * ngf, ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf), nn.ReLU(),
            nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, latent):
        return self.main(latent)

class Discriminator(nn.Module):
    def __init__(self, ngpu):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(nc, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * ndf), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * ndf), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * ndf, 1, 4, bias=False), nn.Sigmoid())

    def forward(self, images):
        return self.main(images).flatten()
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "main.py").write_text(SCRIPT)
    return tmp_path / "main.py"


def test_a_script_is_read_and_not_run(script, tmp_path):
    assert has_networks(script)
    assert networks_of(script, latent_size=5, width=2, channels=1).generator.main[0].weight.shape == (5, 8, 4, 4)
    (tmp_path / "other.py").write_text("class Generator: pass")
    assert not has_networks(tmp_path / "other.py")
    with pytest.raises(SystemExit, match="Python file"):
        has_networks(tmp_path / "missing.py")


def test_our_step_has_the_losses_of_the_script_on_equal_weights(script, monkeypatch):
    monkeypatch.setattr("benchmarks.lesion_gan.SCRIPT_LATENT", 5)
    theirs = networks_of(script, latent_size=5, width=2, channels=1)
    rng = torch.Generator().manual_seed(0)
    generator = ClassicGenerator(32, rng, latent_size=5, width=2)
    discriminator = ClassicDiscriminator(32, rng, width=2)
    give_weights(generator, theirs.generator)
    give_weights(discriminator, theirs.discriminator)
    settings = LesionStepSettings(
        objective="non_saturating", diff_augment=(), betas=(0.5, 0.999), ema_decay=0.0,
        learning_rate_generator=2e-4, learning_rate_discriminator=2e-4,
    )  # fmt: skip
    step = LesionGANStep(generator, discriminator, settings, torch.Generator().manual_seed(1))
    images = torch.rand(6, 1, 32, 32, generator=rng) * 2 - 1
    terms = step.step(images, torch.zeros(6, dtype=torch.long))
    d_loss, g_loss = script_step(theirs)(images, torch.zeros(6))
    assert float(terms["d_loss"]) == pytest.approx(d_loss, abs=1e-5)
    # The step of D's offsets, which the script lacks, is all that differs.
    assert float(terms["g_loss"]) == pytest.approx(g_loss, abs=2e-3)
