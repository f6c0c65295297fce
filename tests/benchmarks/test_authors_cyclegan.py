"""A checkout of another implementation is told by its files, and loaded without touching our packages."""

from pathlib import Path

import torch

import models
from benchmarks.authors_cyclegan import MODEL_FILES, authors_step, is_checkout

_MODEL = """
from util.image_pool import SIZE
from . import networks

class CycleGANModel:
    def __init__(self, options):
        self.netG_A = self.netG_B = self.netD_A = self.netD_B = networks.LAYER
        self.options, self.pool = options, SIZE

    def set_input(self, images):
        self.images = images

    def optimize_parameters(self):
        self.loss_G = (self.images["A"] - self.images["B"]).abs().mean()
        self.loss_D_A = self.loss_D_B = self.loss_G * 0.5
"""


def _checkout(folder: Path) -> Path:
    texts = dict.fromkeys(MODEL_FILES, "")
    texts["models/cycle_gan_model.py"] = _MODEL
    texts["models/networks.py"] = "import torch\nLAYER = torch.nn.Conv2d(1, 1, 1)\n"
    texts["util/image_pool.py"] = "SIZE = 50\n"
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_checkout_is_stepped_by_its_own_code(tmp_path: Path) -> None:
    assert not is_checkout(tmp_path)
    step = authors_step(_checkout(tmp_path), blocks=6, rate=2e-4, beta1=0.5)
    assert is_checkout(tmp_path)
    assert step.model.options.netG == "resnet_6blocks"
    assert step.model.pool == 50
    assert set(step.networks()) == {"mr_to_ct", "ct_to_mr", "ct_discriminator", "mr_discriminator"}
    losses = step(torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 1, 2, 2))
    assert losses == {"g_loss": 2.0, "d_loss": 2.0}
    assert models.__file__ is not None
    assert not Path(models.__file__).is_relative_to(tmp_path)
