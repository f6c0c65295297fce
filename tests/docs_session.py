"""Runs the blocks of the documentation in one process, as a reader would one after the other, in the current folder.

    python tests/docs_session.py < blocks.json > outcomes.json

A block is ``{"id", "kind", "text", "commands"}``. Plain `scanloom` commands are called in this process, so that the
imaging libraries are imported once; every other line of a ``console`` block goes to bash, a ``python`` block is
executed with the names of the earlier blocks of its page, a ``yaml`` block is written to the file that its first line
names.
Outcomes are ``{id: {"output", "code"}}``, one line of JSON a block.
"""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

_SHELL_SIGNS = frozenset("|<>&;$`*~")


def run_command(command: str) -> tuple[str, int]:
    """Output and exit code of one line."""
    words = shlex.split(command)
    variables = {}
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    if not words or words[0] != "scanloom" or _SHELL_SIGNS & set(command):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=300)
        return done.stdout + done.stderr, done.returncode
    return _run_scanloom(words[1:], variables)


def _run_scanloom(arguments: list[str], variables: dict[str, str]) -> tuple[str, int]:
    from flows.command_line import app

    before = dict(os.environ)
    os.environ.update(variables)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = app(arguments, prog_name="scanloom", standalone_mode=False)
    except BaseException:
        return said.getvalue() + traceback.format_exc(), 1
    finally:
        os.environ.clear()
        os.environ.update(before)
    return said.getvalue(), code if isinstance(code, int) else 0


def run_block(kind: str, text: str, commands: list[str], names: dict[str, Any]) -> tuple[str, int]:
    """Output and exit code of one block; of a console block the code of its last command."""
    if kind == "yaml":
        Path(text.splitlines()[0].lstrip("# ").strip()).write_text(text, encoding="utf-8")
        return "", 0
    if kind == "python":
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(compile(text, "<documentation>", "exec"), names)  # noqa: S102 - the repository's own pages
        except Exception:
            return said.getvalue() + traceback.format_exc(), 1
        return said.getvalue(), 0
    output, code = "", 0
    for number, command in enumerate(commands, 1):
        more, code = run_command(command)
        output += more
        if code and number < len(commands):
            return f"{output}\n`{command}` ended with {code} in the middle of its block", 1
    return output, code


def main() -> None:
    """Run the blocks given on standard input."""
    names: dict[str, dict[str, Any]] = {}
    for block in json.load(sys.stdin):
        page = block["id"].partition(":")[0]
        of_page = names.setdefault(page, {"__name__": "documentation"})
        output, code = run_block(block["kind"], block["text"], block["commands"], of_page)
        sys.stdout.write(json.dumps({"id": block["id"], "output": output, "code": code}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
