"""``.bidsignore``: files that a BIDS dataset declares to be none of its own, in the syntax of gitignore(5)."""

import re
from collections.abc import Callable

from pipeline.ingest.source_tree import SourceTree, read_start

FILE_NAME = ".bidsignore"
_LIMIT_BYTES = 1 << 20
_MOST_WILDCARDS = 12
"""A line with more is passed over, because telling what it matches could take long."""

_SIGNS = re.compile(r"\*\*/|/\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|\\.|.", re.DOTALL)


def ignored_by(tree: SourceTree) -> Callable[[str], bool]:
    """Tells of a name whether ``.bidsignore`` at the root names it; the last line that matches decides."""
    file = tree.named().get(FILE_NAME)
    lines = [] if file is None else read_start(file, _LIMIT_BYTES).decode("utf-8-sig", "replace").splitlines()
    rules = [rule for line in lines if (rule := _rule(line)) is not None]

    def is_ignored(name: str) -> bool:
        found = False
        for expression, ignores in rules:
            if expression.fullmatch(name):
                found = ignores
        return found

    return is_ignored


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    """A line as an expression over whole names, and whether it ignores or takes back; None for notes."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    pattern = line.lstrip("!")
    folder_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    anchored = "/" in pattern
    pattern = pattern.lstrip("/")
    if sum(sign in "*?" for sign in pattern) > _MOST_WILDCARDS:
        return None
    body = "".join(_expression(sign) for sign in _SIGNS.findall(pattern))
    try:
        return re.compile(f"{'' if anchored else '(?:.*/)?'}{body}{'/.*' if folder_only else '(?:/.*)?'}"), ignores
    except re.error:
        return None


def _expression(sign: str) -> str:
    if sign == "**/":
        return "(?:.*/)?"
    if sign == "/**":
        return "/.*"
    if sign in "*?":
        return "[^/]*" if sign == "*" else "[^/]"
    if sign.startswith("[") and len(sign) > 2:
        return "(?!/)" + re.sub(r"^\[!", "[^", sign)
    return re.escape(sign[1:] if sign.startswith("\\") and len(sign) > 1 else sign)
