"""The run at work in this process, looked up by token.

Prefect stores the parameters of flows and tasks in its database. The input folder, the workspace and the settings stay
out of it: tasks are given a random token and find the chain here. The token means nothing outside this process.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flows.chain import STEPS, Call, Chain
from flows.progress import Display
from pipeline.records import ProgressCallback, StageRecord


class LiveRun:
    """One run in this process: its chain, what a person sees of it, and its failure in full.

    Args:
        call: what every step is called with; its progress goes to the display and to `watched` callbacks.
        display: what a person sees.
        site: name of the site; None for a run that a command started.

    Attributes:
        chain: the steps and what they made.
        failure: the exception that ended the last step, in full; Prefect is told its type only.
        began: whether any step was begun.
        deadline: monotonic seconds at which the run is to be stopped; None for never.
    """

    def __init__(self, call: Call, display: Display, site: str | None = None) -> None:
        self._display = display
        self._watchers: list[ProgressCallback] = [display.advance]
        self.chain = Chain(replace(call, progress=self._advance))
        self.failure: BaseException | None = None
        self.began = False
        self.site = site
        self.deadline: float | None = None
        self._attempts: dict[str, int] = {}

    def take(self, name: str, order: Sequence[str] | None = None) -> StageRecord:
        """Take one step of ``order``, by default of the whole run's, and show it.

        The exception of a failed step is kept in `failure`.
        """
        order = self.chain.order() if order is None else order
        self.began, self.failure = True, None
        self._attempts[name] = self._attempts.get(name, 0) + 1
        again = "" if self._attempts[name] == 1 else "once more after a passing error: "
        self._display.begin(name, again + STEPS[name].title, order.index(name) + 1, len(order))
        started = time.monotonic()
        try:
            record = self.chain.take(name)
        except BaseException as error:
            self.failure = error
            self._display.abandon()
            raise
        self._display.end(record.cached, time.monotonic() - started)
        return record

    @contextmanager
    def watched(self, watcher: ProgressCallback) -> Iterator[None]:
        """Tell ``watcher`` of progress too, for the time of the block."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def complete(self) -> bool:
        """Whether every step of the run was taken."""
        return all(name in self.chain.records for name in self.chain.order())

    def _advance(self, what: str, done: int, total: int) -> None:
        for watcher in self._watchers:
            watcher(what, done, total)


_LIVE: dict[str, LiveRun] = {}


@contextmanager
def enrolled(run: LiveRun) -> Iterator[str]:
    """Enter a run for the time of the block and yield its token."""
    token = secrets.token_hex(8)
    _LIVE[token] = run
    try:
        yield token
    finally:
        del _LIVE[token]


def known_run(token: str) -> LiveRun | None:
    """The run of a token, None where no such run is at work in this process."""
    return _LIVE.get(token)


def live_run(token: str) -> LiveRun:
    """The run of a token.

    Raises:
        LookupError: no such run is at work in this process.
    """
    if token not in _LIVE:
        raise LookupError("a run can only go on in the process that began it; start it again")
    return _LIVE[token]
