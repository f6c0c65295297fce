"""Independent pieces of one stage, and where they are worked on: here, or wherever an orchestrator spreads them.

A stage hands a function and its items to a `Spread`. Whatever spreads them, results come in the order of the items, so
that the stage writes the same bytes; it alone writes, and the function only reads.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Spread(Protocol):
    """A way to work on many items."""

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Yield ``work(item)`` for every item, in order; an exception comes out where its result would.

        Args:
            work: a module-level function, or a `functools.partial` of one; it, its items and its results are picklable.
            items: taken a few at a time, so that memory holds a few of them whatever their number.
        """
        ...


def here(work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """A `Spread` over nothing but this process, one item after the other."""
    return map(work, items)
