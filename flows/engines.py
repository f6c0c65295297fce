"""Engines: where a run works on independent series, volumes and cases. Without one, in the run's own process.

``dask`` starts worker processes on this machine, ``dask:4`` four of them; ``dask:tcp://host:8786`` and
``dask:tls://host:8786`` use the workers of a scheduler that runs already. Workers only read; what they make comes back
in order and is written by the run, so that the bytes are those of a run without an engine. A worker refuses to work
where it could make others: other sources or libraries, folders that it does not see, several threads in one process.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from flows.failures import OrchestrationError
from pipeline.errors import SettingsError
from pipeline.files import sha256_json
from pipeline.source_hash import source_hash
from pipeline.spreading import Spread, here

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items a worker that are at work or wait to be written; bounds memory."""

CONNECT_S = 20
_MODULES = ("pipeline.ingest.stage", "pipeline.prepare.stage", "pipeline.generate.stage", "pipeline.evaluate.stage")
_LIBRARIES = ("numpy", "scipy", "simpleitk", "scikit-image", "nibabel", "pydicom", "polars", "pillow", "torch")

_OWN_WORKERS = {
    "distributed.worker.daemon": False,  # a worker starts the limited process that parses, which a daemon may not
    "distributed.scheduler.http.routes": [],  # pages without a password
    "distributed.worker.http.routes": [],
}
"""Dask's configuration of processes of this machine."""


ENGINE_PATTERN = r"^(serial|dask(:([1-9][0-9]*|(tcp|tls)://\S+))?)$"
"""What flows take as an engine; `asked_engine` says the same in words."""


@dataclass(frozen=True)
class Asked:
    """What ``--engine`` asks for.

    Attributes:
        workers: processes to start; None for an address.
        address: of a scheduler; None for own processes.
    """

    workers: int | None
    address: str | None


def asked_engine(word: str) -> Asked | None:
    """What an ``--engine`` says; None for ``serial``.

    >>> asked_engine("dask:2"), asked_engine("dask:tcp://127.0.0.1:8786").address, asked_engine("serial")
    (Asked(workers=2, address=None), 'tcp://127.0.0.1:8786', None)

    Raises:
        SettingsError: no such engine, or Dask is not installed.
    """
    name, _, rest = word.partition(":")
    count = int(rest) if rest.isascii() and rest.isdigit() else None
    known = rest == "" or (count is not None and count > 0) or rest.startswith(("tcp://", "tls://"))
    if word == "serial":
        return None
    if name != "dask" or not known or word.endswith(":"):
        raise SettingsError(
            "An engine is where a run works on series, volumes and cases.",
            found=word,
            allowed="serial, dask, dask:WORKERS, dask:tcp://HOST:PORT or dask:tls://HOST:PORT",
            change="Correct --engine, or leave it out.",
        )
    if find_spec("distributed") is None:
        raise SettingsError(
            "The engine dask needs Dask.",
            found="no package distributed",
            allowed="dask and distributed",
            change="Run `pip install 'scanloom[distributed]'`, or leave --engine out.",
        )
    if rest.startswith("t"):
        return Asked(None, rest)
    return Asked(count or len(os.sched_getaffinity(0)), None)


@contextmanager
def engine(word: str | None, folders: Sequence[Path]) -> Iterator[Spread]:
    """The engine of a run, for the time of the block; it starts with the first work that there is for it.

    Args:
        word: as ``--engine`` says; None for none.
        folders: workspace and input, which every worker must see.
    """
    asked = None if word is None else asked_engine(word)
    if asked is None:
        yield here
        return
    with ExitStack() as stack:
        yield _Dask(asked, _Ground.here(folders), stack)


@dataclass(frozen=True)
class _Ground:
    """What a worker has to have in common with the run.

    Attributes:
        sources, libraries: hashes.
        folders: to be seen, with what lies in the input as a hash.
    """

    sources: str
    libraries: str
    folders: tuple[tuple[str, str], ...]

    @classmethod
    def here(cls, folders: Sequence[Path]) -> "_Ground":
        """That of this process."""
        found = tuple((str(folder.resolve()), _seen(str(folder.resolve()))) for folder in folders)
        return cls(*_versions(), found)


class _Dask:
    """A `Spread` over Dask's workers."""

    def __init__(self, asked: Asked, ground: _Ground, stack: ExitStack) -> None:
        self._asked, self._ground, self._stack = asked, ground, stack
        self._client: Any = None

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Results in order; `AHEAD` items a worker are under way."""
        if self._client is None:
            self._client = self._stack.enter_context(_client(self._asked))
        threads = sum(self._client.nthreads().values())
        grounded = partial(_grounded, self._ground, work)
        under_way: deque[Any] = deque()
        try:
            for item in items:
                under_way.append(self._client.submit(grounded, item, pure=False))
                if len(under_way) >= AHEAD * max(threads, 1):
                    yield _result(under_way.popleft())
            while under_way:
                yield _result(under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def _client(asked: Asked) -> Iterator[Any]:
    """A client of own workers or of a scheduler."""
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if asked.address is None:
            stack.enter_context(dask.config.set(_OWN_WORKERS))
            # With a certificate of its own: a port of this machine is open to all its users. Without a limit of
            # memory nothing is spilled to disk.
            cluster = LocalCluster(
                n_workers=asked.workers,
                threads_per_worker=1,
                host="127.0.0.1",
                security=True,
                memory_limit=0,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.ERROR,
            )
            stack.enter_context(cluster)
        try:
            client = Client(asked.address or cluster, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise OrchestrationError(
                "The engine needs a Dask scheduler that answers.",
                found=f"{type(error).__name__} at {asked.address or 'this machine'}",
                allowed="the address of a running scheduler with workers of the same scanloom",
                change="Check the address after dask:, or use --engine dask for processes of this machine.",
            ) from error
        yield stack.enter_context(client)


def _result(future: Any) -> Any:
    """A result; the work's own exception comes out as it was raised."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        return future.result()
    except (KilledWorker, CancelledError, CommClosedError) as error:
        raise OrchestrationError(
            "The workers of an engine must live as long as their run.",
            found=f"{type(error).__name__}: the scheduler went, or workers ended again and again under one piece",
            allowed="workers with enough memory, and a scheduler that answers",
            change="Use fewer workers, or leave --engine out. Run again: finished steps are kept.",
        ) from None


def _grounded(ground: _Ground, work: Callable[[Item], Result], item: Item) -> Result:
    """Do a piece of work, in a worker that is fit for it.

    Raises:
        OrchestrationError: it is not.
    """
    unfit = _unfit(ground)
    if unfit is not None:
        raise OrchestrationError(
            "A worker of an engine must be able to make the bytes that the run itself would make.",
            found=unfit,
            allowed="the same scanloom and libraries, the same folders, one thread a worker, no daemon",
            change="Start workers as docs/flows.md shows, from the environment of the run.",
        )
    return work(item)


@cache
def _unfit(ground: _Ground) -> str | None:
    from multiprocessing import current_process

    from distributed import get_worker

    sources, libraries = _versions()
    if sources != ground.sources:
        return "a worker of another version of scanloom"
    if libraries != ground.libraries:
        return "a worker with other versions of numerical libraries"
    if any(_seen(folder) != seen for folder, seen in ground.folders):
        return "a worker that does not see the workspace or the scans as the run does"
    if get_worker().state.nthreads != 1:
        return f"a worker with {get_worker().state.nthreads} threads"
    if current_process().daemon:
        return "a worker that is a daemon, which may start no process that parses"
    return None


@cache
def _versions() -> tuple[str, str]:
    sources = sha256_json([source_hash(module) for module in _MODULES])
    return sources, sha256_json({name: version(name) for name in _LIBRARIES})


def _seen(folder: str) -> str:
    """What a process sees of a folder or file: its kind, and its place on the disk, which a share keeps."""
    try:
        status = os.stat(folder)
    except OSError:
        return "nothing"
    return f"{status.st_mode}-{status.st_ino}"
