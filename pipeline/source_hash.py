"""Hash of a stage's own sources: the module that makes it and every module of ours that it imports, transitively.

A stage whose code changed is made again; a change elsewhere leaves its cache alone.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from pipeline.files import sha256_file, sha256_json

_OURS = ("pipeline", "models")
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of a syntax tree that hold statements, or what holds statements."""
_LEFT_OUT = frozenset({"pipeline.settings_loading", "pipeline.errors"})
_SETTINGS = re.compile(r"pipeline\.(\w+_)?settings")
"""The values of settings enter a key themselves, and errors end a stage: a new preset or wording retrains nothing."""


def source_hash(module: str) -> str:
    """SHA-256 over the sources that ``module`` (dotted name) reaches inside scanloom."""
    return sha256_json(dict(source_hashes(module)))


@functools.cache
def source_hashes(module: str) -> Mapping[str, str]:
    """SHA-256 of each source file that ``module`` reaches inside scanloom, by module."""
    seen: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name in _LEFT_OUT or _SETTINGS.fullmatch(name):
            continue
        path = _source_path(name)
        if path is None:
            continue
        seen[name] = path
        waiting.extend(_imports(path))
    return {name: _hash(path) for name, path in sorted(seen.items())}


@functools.cache
def _hash(path: Path) -> str:
    return sha256_file(path)


@functools.cache
def _source_path(module: str) -> Path | None:
    if module.partition(".")[0] not in _OURS:
        return None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Modules of ours that a source names; stages share most of them, so that each is parsed once."""
    found: set[str] = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.partition(".")[0] in _OURS)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement below a node; expressions, which are most of a tree, hold no import."""
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            yield child
            yield from _statements(child)
