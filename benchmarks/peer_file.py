"""Peers that are not vendored: a Python file of the user's that builds one training step of another implementation.

The file defines one function and nothing else is asked of it:

    def build_step(**sizes) -> Callable: ...

`lesion_gan` calls ``build_step(size_px, channels, classes, width, latent_size)`` and then ``step(images, classes)``;
`mr_to_ct` calls ``build_step(channels, width, discriminator_width)`` and then ``step(mr, ct)``.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any


def build_step_of(path: Path) -> Callable[..., Callable[..., Any]]:
    """The function ``build_step`` of a file.

    Raises:
        SystemExit: there is no such file or function.
    """
    spec = importlib.util.spec_from_file_location("benchmark_peer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"A peer is a Python file; found {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "build_step"):
        raise SystemExit(f"{path} must define build_step(); see benchmarks/peer_file.py.")
    build: Callable[..., Callable[..., Any]] = module.build_step
    return build
