"""Messages between the two processes: a pickle (protocol 5), and its arrays' bytes behind it, never copied into it.

A message is the number of its parts, the size and place of each, and the parts that lie in no area of shared memory
(`arenas`); all integers of 8 bytes, little-endian. What the parsing process sends is not trusted: `unpack` builds only
types that results are made of.
"""

import io
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.safe_parse.arenas import NONE

Part = bytes | memoryview

COUNT = struct.Struct("<Q")
PART = struct.Struct("<QQ")
"""Bytes of a part, and its place in shared memory or `NONE`."""

MAXIMUM_PARTS = 1 << 16

_PLAIN_TYPES = frozenset(
    {
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("builtins", "slice"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("pathlib", "Path"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("_codecs", "encode"),  # bytes in pickles of older protocols, which NumPy's scalars use
    }
)
_ARRAYS = frozenset({"_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar"})
_OURS = "pipeline."


def pack(message: Any, place_of: Callable[[memoryview], int] = lambda content: NONE) -> list[Part]:
    """A message as parts to send, in order, with their sizes and places first.

    Args:
        message: result and refusal.
        place_of: where bytes lie in the shared memory of this task, or `NONE`.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: it holds what cannot be pickled.
        MemoryError: the limit.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    places = [NONE, *map(place_of, arrays)]
    parts: list[Part] = [content, *arrays]
    heads = [PART.pack(len(part), place) for part, place in zip(parts, places, strict=True)]
    sent = [part for part, place in zip(parts, places, strict=True) if place == NONE]
    return [COUNT.pack(len(parts)) + b"".join(heads), *sent]


def unpack(parts: Sequence[Part]) -> Any:
    """The message that parts from the parsing process hold.

    Args:
        parts: without the lengths; those of arrays become the arrays' memory.

    Raises:
        pickle.UnpicklingError: it names a type that no result is made of; and whatever malformed pickles raise.
    """
    return _Results(io.BytesIO(parts[0]), buffers=parts[1:]).load()


class _Results(pickle.Unpickler):
    """Unpickles arrays, plain values, our own frozen dataclasses and tuples, and refusals."""

    def find_class(self, module: str, name: str) -> Any:
        """The type of that name, if results may hold it."""
        if (module, name) in _PLAIN_TYPES or (module.partition(".")[0] == "numpy" and name in _ARRAYS):
            return super().find_class(module, name)
        if module == "numpy.dtypes" or (module == "numpy" and name.rstrip("_0123456789").isalpha()):
            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, np.dtype | np.generic):
                return found
        if module.startswith(_OURS) and "." not in name:
            found = getattr(sys.modules.get(module) or import_module(module), name, None)
            if isinstance(found, type) and found.__module__.startswith(_OURS) and _is_value(found):
                return found
        raise pickle.UnpicklingError("a type that no result is made of")


def _is_value(found: type) -> bool:
    """Whether a class of ours only holds values."""
    if issubclass(found, QuarantineError | Enum) or (issubclass(found, tuple) and hasattr(found, "_fields")):
        return True
    return is_dataclass(found) and bool(found.__dataclass_params__.frozen)  # type: ignore[attr-defined]
