"""The architecture holds: layers, floors, what models may touch, what the command line imports at start."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "prefect", "monai", "numpy", "nibabel", "pydicom", "polars", "pydantic", "skimage", "SimpleITK")
LONGEST_FILE = 450
"""Lines; the aim is 400."""


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_command_line_starts_without_heavy_imports() -> None:
    script = f"import sys, flows.command_line; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_models_open_no_file_and_pickle_nothing() -> None:
    forbidden = {"open", "eval", "exec", "__import__", "torch.save", "torch.load"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in sorted((ROOT / "models").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
    ]
    assert found == []


def test_pipeline_never_loads_pickles() -> None:
    found = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "pickle.load", "pickle.loads"}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            allows = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            if allows and not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(f"{path.relative_to(ROOT)}: allow_pickle")
    assert found == []


def test_files_stay_readable_in_one_sitting() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for folder in ("flows", "pipeline", "models")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    ]
    assert long == []


def test_names_that_say_nothing_are_not_used() -> None:
    banned = {"utils", "helpers", "common", "misc", "manager"}
    found = [
        path.relative_to(ROOT)
        for folder in ("flows", "pipeline", "models", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if banned & set(path.with_suffix("").parts)
    ]
    assert found == []


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    made = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("flows", "pipeline", "models", "configs")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == made
