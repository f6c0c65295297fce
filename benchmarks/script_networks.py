"""Network classes out of a training script, which is neither run nor imported: scripts parse arguments and load data.

The classes `Generator` and `Discriminator` are read from the file's syntax tree and made with the names that the DCGAN
example of PyTorch (github.com/pytorch/examples, dcgan/main.py) gives its sizes: nz, ngf, ndf, nc.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

NAMES = ("Generator", "Discriminator")


@dataclass(frozen=True)
class ScriptNetworks:
    """Both networks of a script, on the CPU."""

    generator: nn.Module
    discriminator: nn.Module


def has_networks(path: Path) -> bool:
    """Whether a Python file defines both classes at its top level."""
    return set(NAMES) <= {node.name for node in _classes(path)}


def networks_of(path: Path, *, latent_size: int, width: int, channels: int) -> ScriptNetworks:
    """Make both networks. The statements of the two classes are run, so name only files that you trust.

    Args:
        path: of the script.
        latent_size: nz.
        width: ngf and ndf.
        channels: nc, of the images.
    """
    sizes = {"nz": latent_size, "ngf": width, "ndf": width, "nc": channels}
    scope: dict[str, Any] = {"torch": torch, "nn": nn, **sizes}
    chosen = [node for node in _classes(path) if node.name in NAMES]
    exec(compile(ast.Module(body=list(chosen), type_ignores=[]), str(path), "exec"), scope)  # noqa: S102 - asked for
    generator, discriminator = (scope[name](1) for name in NAMES)
    return ScriptNetworks(generator, discriminator)


def _classes(path: Path) -> list[ast.ClassDef]:
    if not path.is_file():
        raise SystemExit(f"A peer is a Python file; found {path}.")
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]
