"""How counts, titles and commands are put into words.

Only the standard library is imported: the command line needs this before anything heavy is loaded.
"""

import shlex
from pathlib import Path

DEFAULT_WORKSPACE = Path("workspace")
"""The workspace of a command that is given none."""

TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"
"""torchrun sets it in every process that it starts."""

OUTSIDE_WORKSPACE = Path("evaluation")
"""The workspace of an evaluation of images from elsewhere that is given none."""


def counted(count: int, singular: str) -> str:
    """A count with its noun: ``1 step``, ``2 steps``; the plural is the singular with an s."""
    return f"{count} {singular}" if count == 1 else f"{count} {singular}s"


def sentence_case(text: str) -> str:
    """The text with its first letter in upper case; names such as GAN, MR and CT stay as they are."""
    return text[:1].upper() + text[1:]


def workspace_option(workspace: Path) -> str:
    """The option, with a leading space, that makes a command find this workspace; empty for the default one."""
    return "" if workspace == DEFAULT_WORKSPACE else f" --workspace {shlex.quote(str(workspace))}"
