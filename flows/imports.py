"""Large imports at less cost: Prefect, its server and torch are thousands of modules that all stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Import inside the block without looking for garbage in between, a fifth of the time, nor ever again.

    What the modules made is kept out of later collections, and of the last ones when Python ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
