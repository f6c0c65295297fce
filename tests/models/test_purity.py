"""`models` is pure torch: it imports no other package and touches no file."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "models"
FILES = sorted(SOURCE.rglob("*.py"))
ALLOWED_PACKAGES = {"torch", "models", "math", "typing", "dataclasses", "collections", "copy", "functools"}
FORBIDDEN_CALLS = {"open", "print", "eval", "exec", "torch.save", "torch.load", "torch.manual_seed"}


def imported_packages(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if node.level == 0 else "relative")
    return names


def called_names(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_torch_alone_and_touches_no_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert imported_packages(tree) <= ALLOWED_PACKAGES
    assert not called_names(tree) & FORBIDDEN_CALLS


def test_the_scan_sees_planted_offenders() -> None:
    tree = ast.parse("import numpy as np\nfrom os import path\nimport torch\ntorch.save(1, open('x'))\n")
    assert imported_packages(tree) - ALLOWED_PACKAGES == {"numpy", "os"}
    assert called_names(tree) & FORBIDDEN_CALLS == {"torch.save", "open"}
    assert len(FILES) > 10


def test_the_two_gans_do_not_import_each_other() -> None:
    for here, there in (("lesion_gan", "mr_to_ct"), ("mr_to_ct", "lesion_gan")):
        for path in (SOURCE / here).glob("*.py"):
            assert f"models.{there}" not in path.read_text(encoding="utf-8"), path
