"""What a parser is asked and answers, as JSON: plain values, small arrays, masks, and the frozen records of scanloom.

Records are named by module and class and made again through their constructors, so that their checks run. A file of the
input is written by its name, relative to the input: what was read of it is known again after the input has moved.
"""

import base64
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import QuarantineError

_PLAIN = (str, int, float, bool, type(None))
_OURS = "pipeline."
LARGEST_ARRAY_BYTES = 1 << 16
"""Arrays of more bytes are voxels and have no place in a row of a database, but for masks, which pack well."""

LARGEST_PACKED_BYTES = 1 << 20


class NotPlainError(TypeError):
    """A value that has no plain form."""


def encoded(value: Any, name_of: Callable[[Path], str]) -> Any:
    """JSON form of a value.

    Args:
        value: plain values, tuples, lists, mappings with keys of text or whole numbers, bytes, small arrays, arrays of
            16-bit numbers that pack well, paths, refusals, records of scanloom.
        name_of: name of a file of the input; it may raise `NotPlainError`.

    Raises:
        NotPlainError: no JSON form.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Path):
        return {"path": name_of(value)}
    if isinstance(value, list):
        return [encoded(item, name_of) for item in value]
    if is_dataclass(value) or hasattr(value, "_fields"):
        kind: type = type(value)
        return {"record": _record_name(kind), "of": [encoded(getattr(value, key), name_of) for key in _keys(kind)]}
    if isinstance(value, tuple):
        return {"tuple": [encoded(item, name_of) for item in value]}
    return _encoded_rest(value, name_of)


def decoded(value: Any, path_of: Mapping[str, Path]) -> Any:
    """The value that `encoded` was given.

    Raises:
        NotPlainError: not a form that `encoded` makes.
        KeyError: a file that the input lacks.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list):
        return [decoded(item, path_of) for item in value]
    match value:
        case {"path": name}:
            return path_of[name]
        case {"tuple": items}:
            return tuple(decoded(item, path_of) for item in items)
        case {"record": name, "of": items}:
            kind = _record(name)
            return kind(**dict(zip(_keys(kind), (decoded(item, path_of) for item in items), strict=True)))
        case {"mapping": items}:
            return {key: decoded(item, path_of) for key, item in items}
        case {"refusal": [reason, found, advice]}:
            return QuarantineError(reason, found, advice)
    return _decoded_bytes(value)


def _decoded_bytes(value: Any) -> Any:
    match value:
        case {"bytes": text}:
            return base64.b64decode(text)
        case {"array": text, "dtype": dtype, "shape": shape}:
            return np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape).copy()
        case {"packed": text, "shape": shape, "order": order}:
            return np.frombuffer(bytearray(zlib.decompress(base64.b64decode(text))), "<i2").reshape(shape, order=order)
    raise NotPlainError("no form that was written here")


def _encoded_rest(value: Any, name_of: Callable[[Path], str]) -> Any:
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {"mapping": [[key, encoded(item, name_of)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.generic) and type(value.item()) in _PLAIN:
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.nbytes <= LARGEST_ARRAY_BYTES:
        text = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {"array": text, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.ndarray) and value.dtype == np.int16:
        return _packed(value)
    if type(value) is QuarantineError:
        return {"refusal": [value.reason, value.found, value.advice]}
    raise NotPlainError(type(value).__name__)


def _packed(value: NDArray[np.int16]) -> Any:
    """A mask: mostly zero, in long runs."""
    order = "C" if value.flags.c_contiguous else "F"
    packer = zlib.compressobj(1)
    content = packer.compress(np.ascontiguousarray(value if order == "C" else value.T, "<i2").data) + packer.flush()
    if len(content) > LARGEST_PACKED_BYTES:
        raise NotPlainError("an array that does not pack")
    return {"packed": base64.b64encode(content).decode("ascii"), "shape": list(value.shape), "order": order}


@cache
def _keys(kind: type) -> tuple[str, ...]:
    """Names of a record's arguments."""
    named: tuple[str, ...] | None = getattr(kind, "_fields", None)
    return named or tuple(item.name for item in fields(kind) if item.init)


@cache
def _record_name(kind: type) -> str:
    if not kind.__module__.startswith(_OURS):
        raise NotPlainError(kind.__name__)
    return f"{kind.__module__}:{kind.__qualname__}"


@cache
def _record(name: str) -> type:
    module, _, kind = name.partition(":")
    found = getattr(importlib.import_module(module), kind, None) if module.startswith(_OURS) else None
    if not isinstance(found, type) or not (is_dataclass(found) or hasattr(found, "_fields")):
        raise NotPlainError("no record of scanloom")
    return found
