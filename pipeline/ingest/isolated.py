"""Many small files through the isolated parser: in chunks for speed, one by one where a chunk kills its process."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from pipeline.errors import QuarantineError
from pipeline.safe_parse import Limits, Outcome, parse_all
from pipeline.spreading import Spread, here

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_FILES = 200
"""Files handed to the parsing process at a time; bounds memory and the work repeated after a crash."""


def parse_each(
    parse: Callable[[tuple[Item, ...]], list[Result | QuarantineError]],
    items: Sequence[Item],
    limits: Limits,
    chunk: int = CHUNK_FILES,
) -> Iterator[Outcome[Item, Result]]:
    """Yield the outcome of every item, in order.

    Args:
        parse: module-level function that answers a chunk with one result or refusal an item.
        items: picklable.
        limits: limits of the child process; the time limit holds for a chunk.
        chunk: items a chunk.
    """
    chunks = [tuple(items[start : start + chunk]) for start in range(0, len(items), chunk)]
    for outcome in parse_all(parse, chunks, limits):
        if outcome.result is not None:
            for item, result in zip(outcome.task, outcome.result, strict=True):
                yield _outcome(item, result)
        elif len(outcome.task) == 1:
            yield Outcome(outcome.task[0], None, outcome.refusal)
        else:
            yield from parse_each(parse, outcome.task, limits, chunk=1)


def spread_outcomes(
    spread: Spread,
    parse: Callable[[Sequence[Item]], Iterator[Outcome[Item, Result]]],
    at_a_time: int,
    items: Sequence[Item],
) -> Iterator[Outcome[Item, Result]]:
    """Yield the outcome of every item, in order, some items of it parsed elsewhere.

    Args:
        spread: where to parse; every process that it uses has limited child processes of its own.
        parse: yields the outcomes of the items that it is given; picklable.
        at_a_time: items parsed elsewhere in one go.
        items: picklable.
    """
    if spread is here:  # one child process serves them all, and each result is handed on before the next is taken
        yield from parse(items)
        return
    chunks = [items[start : start + at_a_time] for start in range(0, len(items), at_a_time)]
    for outcomes in spread(partial(_all_of, parse), chunks):
        yield from outcomes


def _all_of(
    parse: Callable[[Sequence[Item]], Iterator[Outcome[Item, Result]]], items: Sequence[Item]
) -> list[Outcome[Item, Result]]:
    return list(parse(items))


def _outcome(item: Item, result: Result | QuarantineError) -> Outcome[Item, Result]:
    return Outcome(item, None, result) if isinstance(result, QuarantineError) else Outcome(item, result, None)
