"""The training step of the CycleGAN's authors, out of a checkout of github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

Their model is built and stepped by their own code, on the CPU, with the options that their command line has by default.
Their packages are called `models`, as is one of ours, and `util`: theirs is loaded under another name. Loading runs
their files, so name only a checkout that you trust.
"""

import contextlib
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor, nn

MODEL_FILES = ("models/cycle_gan_model.py", "models/base_model.py", "models/networks.py", "util/image_pool.py")


@dataclass(frozen=True)
class AuthorsStep:
    """Their model: A is MR and B is CT.

    Attributes:
        model: their CycleGANModel.
    """

    model: Any

    def networks(self) -> dict[str, nn.Module]:
        """Their networks under our names."""
        names = {"mr_to_ct": "G_A", "ct_to_mr": "G_B", "ct_discriminator": "D_A", "mr_discriminator": "D_B"}
        return {ours: getattr(self.model, f"net{theirs}") for ours, theirs in names.items()}

    def __call__(self, mr: Tensor, ct: Tensor) -> dict[str, float]:
        """Train on one batch; the losses of generators and discriminators."""
        self.model.set_input({"A": mr, "B": ct, "A_paths": [], "B_paths": []})
        self.model.optimize_parameters()
        d_loss = self.model.loss_D_A.detach() + self.model.loss_D_B.detach()
        return {"g_loss": float(self.model.loss_G.detach()), "d_loss": float(d_loss)}


def is_checkout(path: Path) -> bool:
    """Whether a folder holds their files."""
    return all((path / name).is_file() for name in MODEL_FILES)


def authors_step(checkout: Path, *, blocks: int, rate: float, beta1: float) -> AuthorsStep:
    """Their model for slices of one channel.

    Args:
        checkout: folder of their repository.
        blocks: residual blocks, 6 or 9.
        rate: step size of Adam.
        beta1: decay rate of its first moment.
    """
    options = SimpleNamespace(
        isTrain=True, gpu_ids=[], checkpoints_dir=".", name="benchmark", preprocess="scale_width", direction="AtoB",
        input_nc=1, output_nc=1, ngf=64, ndf=64, netG=f"resnet_{blocks}blocks", netD="basic", n_layers_D=3,
        norm="instance", no_dropout=True, init_type="normal", init_gain=0.02, pool_size=50, gan_mode="lsgan",
        lr=rate, beta1=beta1, lambda_A=10.0, lambda_B=10.0, lambda_identity=0.5,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # they say how each network was initialized
        return AuthorsStep(_model_module(checkout).CycleGANModel(options))


def _model_module(checkout: Path) -> ModuleType:
    for package, name in (("models", "authors_models"), ("util", "util")):
        module = ModuleType(name)
        module.__path__ = [str(checkout / package)]
        sys.modules[name] = module
    return importlib.import_module("authors_models.cycle_gan_model")
