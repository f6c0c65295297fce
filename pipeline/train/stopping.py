"""Requests to stop that wait for a good moment: SIGTERM and Ctrl-C between two training steps, not within one.

Half a step is no state to go on from. While a training runs, the first signal is noted; the loop sets the state down,
then delivers the signal to whoever handled it before. A second signal is delivered at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """What was asked while a training runs.

    Attributes:
        number: the signal that came first; None as long as nobody asks.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def deliver(self) -> None:
        """Hand the signal to its former handler, which raises as a rule."""
        number, self.number = self.number, None
        self._restore()
        if number is not None:
            signal.raise_signal(number)

    def _take(self) -> None:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if callable(before):  # the default action and SIG_IGN stay what they are
                self._before[number] = before
                signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            self.deliver()
        self.number = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note signals for the time of the block; outside the main thread, where there are none, nothing is ever asked."""
    request = StopRequest()
    try:
        request._take()
    except ValueError:
        yield request
        return
    try:
        yield request
    finally:
        request._restore()
    request.deliver()
