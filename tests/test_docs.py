"""The pages tell the truth: their commands run, their settings validate, their links lead somewhere.

Every ``console`` and ``python`` block of README.md and docs/ is preceded by one of these comments:

    <!-- tested -->             run, in the order of `PAGES`, in one shared folder
    <!-- tested: exit 3 -->     run; the last command ends with this code
    <!-- tested: slow -->       run by `make test-slow` alone, after the quick ones
    <!-- not run: reason -->    only checked for commands, options and settings that exist

A ``yaml`` block under ``tested`` is written to the file that its first line names (``# mine.yaml``); every yaml block
must be valid settings. Lines of a console block that do not begin with ``$`` are output: they must occur in this order
in what the commands print; ``…`` stands for anything.
"""

import ast
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from flows.command_line import app
from pipeline.ingest.layouts import LAYOUTS
from pipeline.settings_loading import preset_names, validate

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "docs/README.md",
    "docs/own-data.md",
    "docs/quality-control.md",
    "docs/settings.md",
    "docs/training.md",
    "docs/lesion-presets.md",
    "docs/translation-presets.md",
    "docs/synthesize.md",
    "docs/lesions-in-hosts.md",
    "docs/translate.md",
    "docs/mr-sequences.md",
    "docs/evaluation.md",
    "docs/evaluate-others.md",
    "docs/report.md",
    "docs/datasets.md",
    "docs/share-models.md",
    "docs/workspace.md",
    "docs/privacy.md",
    "docs/python.md",
    "docs/flows.md",
    "docs/sizing.md",
    "docs/schedule.md",
    "docs/team-server.md",
    "docs/demo.md",
    "README.md",
    "CONTRIBUTING.md",
]
_FENCE = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_EXIT = re.compile(r"tested: exit (\d+)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    id: str
    page: str
    kind: str
    mark: str
    text: str

    @property
    def tested(self) -> bool:
        return self.mark.startswith("tested")

    @property
    def slow(self) -> bool:
        return self.mark == "tested: slow"

    @property
    def code(self) -> int:
        found = _EXIT.fullmatch(self.mark)
        return int(found[1]) if found else 0

    @property
    def commands(self) -> list[str]:
        joined = self.text.replace("\\\n", " ")
        return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]

    @property
    def shown_output(self) -> list[str]:
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("$ ")]


def _blocks(page: str) -> list[Block]:
    found = _FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [
        Block(f"{page}:{number}", page, match["kind"], match["mark"] or "", match["text"])
        for number, match in enumerate(found, 1)
    ]


BLOCKS = [block for page in PAGES for block in _blocks(page)]
RUN = [block for block in BLOCKS if block.tested]


def _session(folder: Path, blocks: list[Block]) -> dict[str, dict[str, Any]]:
    """Outcomes of the blocks by id, run in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = [{"id": b.id, "kind": b.kind, "text": b.text, "commands": b.commands} for b in blocks]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "docs_session.py")],
        input=json.dumps(told),
        cwd=folder,
        env=kept | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {outcome["id"]: outcome for outcome in outcomes} | {"": {"output": done.stderr[-2000:], "code": 1}}


@pytest.fixture(scope="session")
def docs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs")


@pytest.fixture(scope="session")
def quick_outcomes(docs_folder: Path) -> dict[str, dict[str, Any]]:
    return _session(docs_folder, [block for block in RUN if not block.slow])


@pytest.fixture(scope="session")
def slow_outcomes(docs_folder: Path, quick_outcomes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return _session(docs_folder, [block for block in RUN if block.slow])


def _check_outcome(block: Block, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes.get(block.id, outcomes[""])
    assert outcome["code"] == block.code, outcome["output"]
    if block.kind == "console":
        rest = outcome["output"]
        for line in block.shown_output:
            pattern = ".*".join(re.escape(part).replace(r"\ ", r"\s+") for part in line.split("…"))
            match = re.search(pattern, rest)
            assert match, f"{line!r} is not printed; left of the output:\n{rest}"
            rest = rest[match.end() :]


@pytest.mark.parametrize("block", [block for block in RUN if not block.slow], ids=lambda block: block.id)
def test_block_does_what_the_page_says(block: Block, quick_outcomes: dict[str, dict[str, Any]]) -> None:
    _check_outcome(block, quick_outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in RUN if block.slow], ids=lambda block: block.id)
def test_slow_block_does_what_the_page_says(block: Block, slow_outcomes: dict[str, dict[str, Any]]) -> None:
    _check_outcome(block, slow_outcomes)


def test_every_page_is_in_the_list() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert pages <= set(PAGES)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind in {"console", "python"}], ids=lambda block: block.id)
def test_every_block_is_marked(block: Block) -> None:
    assert re.fullmatch(r"tested(: slow|: exit \d+)?|not run: \S.*", block.mark), "mark the block, see this file's top"


def _leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words after it."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command `{words[0]}`"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _scanloom_calls(block: Block) -> list[list[str]]:
    """Arguments of every `scanloom` in a block."""
    calls = []
    for command in block.commands:
        for part in re.split(r"[|;&]|\s>\s", command):
            words = shlex.split(part)
            while words and "=" in words[0]:
                words = words[1:]
            if words[:1] == ["scanloom"]:
                calls.append(words[1:])
    return calls


CONSOLE = [block for block in BLOCKS if block.kind == "console" and _scanloom_calls(block)]


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.id)
def test_commands_options_and_presets_exist(block: Block) -> None:
    for words in _scanloom_calls(block):
        command, rest = _leaf(words)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        used = {word for word in rest if word.startswith("-")} - {"--help"}
        assert used <= known, f"{sorted(used - known)} of `{' '.join(words)}`"
        for option, value in itertools.pairwise(rest):
            if option in {"--config", "-c"}:
                assert value.endswith(".yaml") or value in preset_names()
            if option == "--set" and block.code == 0:
                _check_override(value)
        if words[0] == "run" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1].endswith(".yaml") or words[1] in preset_names()


def _check_override(text: str) -> None:
    dotted, _, value = text.partition("=")
    values: Any = yaml.safe_load(value)
    for key in reversed(dotted.split(".")):
        values = {key: values}
    validate(values, "a page")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "yaml"], ids=lambda block: block.id)
def test_settings_shown_are_valid(block: Block) -> None:
    validate(yaml.safe_load(block.text), block.id)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in _LINK.finditer(text):
        target = match["target"]
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


def _anchors(file: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_own_data_names_every_layout_and_settings_every_preset() -> None:
    own_data, settings = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("own-data.md", "settings.md"))
    assert all(f"`{name}`" in own_data for name in LAYOUTS)
    assert all(f"`{name}`" in settings for name in preset_names())


_REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def _texts(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and len(each.value) > 3
    }


def _raised_reasons(source: str) -> set[str]:
    """Codes that a source gives to a `QuarantineError`: in the call, in a triple for one, or through ``reason``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "QuarantineError":
            found |= _texts(node.args[0]) if node.args else set()
        elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and any("." in text for text in _texts(node.elts[2])):
            found |= _texts(node.elts[0])
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id.lower() == "reason" for target in node.targets
        ):
            found |= _texts(node.value)
    return {text for text in found if _REASON.fullmatch(text)}


def test_reasons_are_found_however_a_source_gives_them() -> None:
    source = (
        'QuarantineError("FIRST", f"{n}", "Do.")\nx = "SECOND", name, "Do it."\n'
        'reason = "THIRD" if a else "FOURTH"\nREASON = "FIFTH"\nother = "SIXTH", "no refusal"\n'
    )
    assert _raised_reasons(source) == {"FIRST", "SECOND", "THIRD", "FOURTH", "FIFTH"}


def test_own_data_explains_every_reason_and_no_other() -> None:
    sources = [
        path for part in ("scan_io", "ingest", "safe_parse") for path in (ROOT / "pipeline" / part).rglob("*.py")
    ]
    raised = set().union(*(_raised_reasons(path.read_text(encoding="utf-8")) for path in sources))
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8").partition("\n## Reasons\n")[2]
    told = [code for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)]
    assert len(raised) > 80
    assert sorted(told) == sorted(raised)


def test_every_command_is_on_some_page() -> None:
    shown = {tuple(words[:2]) for block in CONSOLE for words in _scanloom_calls(block)}
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        names = [(name, sub) for sub in command.commands] if isinstance(command, TyperGroup) else [(name,)]
        for wanted in names:
            assert any(call[: len(wanted)] == wanted for call in shown), f"scanloom {' '.join(wanted)} is on no page"


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.png")), ids=lambda path: path.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 300_000


def test_demo_figures_in_the_readme_are_those_stored() -> None:
    stored = ROOT / "docs" / "results" / "demo.json"
    if not stored.exists():
        pytest.skip("no stored figures of a demo run")
    table = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "demo_table.py"), str(stored)], capture_output=True, text=True, check=True
    ).stdout
    assert table.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
