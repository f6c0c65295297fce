"""Many small files through the isolated parser: in chunks for speed, one by one where a chunk kills its process."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pipeline.errors import QuarantineError
from pipeline.safe_parse import Limits, Outcome, parse_all

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


def _outcome(item: Item, result: Result | QuarantineError) -> Outcome[Item, Result]:
    return Outcome(item, None, result) if isinstance(result, QuarantineError) else Outcome(item, result, None)
