"""The few errors that scanloom raises: the rule broken, the value found, the values allowed, what to change.

`ScanloomError` and its children carry messages meant for users: a command prints them without a traceback.
`QuarantineError` is raised while one scan is parsed; the run goes on and the scan gets a quarantine row.
"""

from collections.abc import Callable
from typing import Any, Self, TypeVar

ErrorKind = TypeVar("ErrorKind", bound="ScanloomError")


class ScanloomError(Exception):
    """A run cannot go on, for a reason the user can act on.

    Args:
        rule: the rule that was broken, as a sentence.
        found: the value that was found.
        allowed: the values that are allowed.
        change: what the user should change.
    """

    exit_code = 1

    def __init__(self, rule: str, *, found: str, allowed: str, change: str) -> None:
        self.rule, self.found, self.allowed, self.change = rule, found, allowed, change
        super().__init__(rule, found, allowed, change)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...], dict[str, Any]]:
        return _again, (type(self), *self.args), self.__dict__

    def __str__(self) -> str:
        return f"{self.rule}\n  found:   {self.found}\n  allowed: {self.allowed}\n  change:  {self.change}"


def _again(kind: type[ErrorKind], rule: str, found: str, allowed: str, change: str) -> ErrorKind:
    """An error as another process raised it."""
    return kind(rule, found=found, allowed=allowed, change=change)


class SettingsError(ScanloomError):
    """A settings file, an override or an environment variable is not valid."""

    exit_code = 2


class InputError(ScanloomError):
    """The data given to a stage cannot serve its purpose."""

    exit_code = 3


class WorkspaceError(ScanloomError):
    """The workspace cannot be used: read-only, locked by another run, of another version, damaged."""

    exit_code = 4


class WorkspaceBusyError(WorkspaceError):
    """Another run holds the workspace."""


class ResourceError(ScanloomError):
    """The machine lacks the disk or memory that a run needs."""

    exit_code = 5


class TrainingError(ScanloomError):
    """Training diverged or cannot be resumed; the last good checkpoint is kept."""

    exit_code = 6


class QuarantineError(Exception):
    """One scan cannot be trusted. Picklable, so that it crosses process boundaries.

    Args:
        reason: stable upper-case code, e.g. ``TRUNCATED``.
        found: what was found, with numbers; never patient data or paths.
        advice: what to do about it.
    """

    def __init__(self, reason: str, found: str, advice: str) -> None:
        self.reason, self.found, self.advice = reason, found, advice
        super().__init__(reason, found, advice)

    def __str__(self) -> str:
        return f"{self.reason}: {self.found} ({self.advice})"
