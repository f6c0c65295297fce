"""What all tests share: finding words in every file of a folder, however they are packed or written."""

import base64
import bz2
import gzip
import io
import json
import lzma
import sqlite3
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")


def _find_words(folder: Path, words: Collection[str], leave_out: Collection[str] = (), extra: bytes = b"") -> list[str]:
    """Words found in names and contents below a folder, as ``file: word``.

    Args:
        folder: searched whole, links not followed.
        words: case does not count.
        leave_out: first path parts that are passed over.
        extra: more to look through, e.g. what a command printed.
    """
    needles = [(word, needle) for word in words for needle in _spellings(word)]
    found = set()
    for name, content in [("(extra)", extra), *_everything(folder, leave_out)]:
        lowered = content.lower()
        found |= {f"{name}: {word}" for word, needle in needles if needle in lowered}
    return sorted(found)


def _everything(folder: Path, leave_out: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in leave_out:
            continue
        yield str(name), name.as_posix().encode("utf-8", "surrogateescape")
        if path.is_file() and not path.is_symlink():
            yield from ((str(name), content) for content in unpacked(path))


def unpacked(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what they hold once inflated or read as a table."""
    content = path.read_bytes()
    yield content
    yield from _inflated(content, depth=3)
    if path.suffix == ".parquet":
        yield json.dumps(pl.read_parquet(path).to_dicts(), ensure_ascii=False, default=str).encode()
    if content[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield "\n".join(database.iterdump()).encode()
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                rows = database.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608
                yield b"\0".join(value for row in rows for value in row if isinstance(value, bytes))


def _inflated(content: bytes, depth: int) -> Iterator[bytes]:
    inner: list[bytes] = []
    if content[:2] == b"\x1f\x8b":
        inner.append(gzip.GzipFile(fileobj=io.BytesIO(content)).read())
    elif content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner += [part for info in archive.infolist() for part in (info.filename.encode(), archive.read(info))]
    elif content[:3] == b"BZh":
        inner.append(bz2.decompress(content))
    elif content[:6] == b"\xfd7zXZ\x00":
        inner.append(lzma.decompress(content))
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        inner += _png_texts(content)
    for part in inner:
        yield part
        if depth:
            yield from _inflated(part, depth - 1)


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Compressed text chunks of a PNG; plain ones stand in the file as they are."""
    place = 8
    while place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        if kind in {b"zTXt", b"iTXt"}:
            body = content[place + 8 : place + 8 + length]
            for start in range(len(body)):
                if body[start : start + 1] == b"\x78":
                    try:
                        yield zlib.decompress(body[start:])
                    except zlib.error:
                        continue
        place += length + 12


def _spellings(word: str) -> set[bytes]:
    """The word as text of several encodings, in base64 at its three offsets, and in hexadecimal digits; lower case."""
    plain = {word.encode(encoding) for encoding in _ENCODINGS}
    plain |= {word.lower().encode(encoding) for encoding in _ENCODINGS}
    found = {each.lower() for each in plain} | {each.hex().encode() for each in plain}
    for each in plain:
        for offset in range(3):
            coded = base64.b64encode(bytes(offset) + each)
            inner = coded[-(-offset * 8 // 6) : len(coded) - 4 if (offset + len(each)) % 3 else len(coded)]
            found.add(inner.lower())
    return found


@pytest.fixture(scope="session")
def find_words() -> Callable[..., list[str]]:
    """Words found in names and contents below a folder; see `_find_words`."""
    return _find_words


@pytest.fixture(scope="session")
def in_ranks() -> Callable[[int, Callable[[Any], Any]], list[Any]]:
    """Call a function in each of some ranks, see `models.ranks`, and return what they return.

    Ranks are threads here, each with a gloo group of its own: exchanges are real, processes are not needed.
    """
    import torch.distributed as dist

    from models.ranks import Ranks

    def run(count: int, work: Callable[[Any], Any]) -> list[Any]:
        store, results, errors = dist.HashStore(), {}, []

        def one(index: int) -> None:
            try:
                results[index] = work(Ranks(dist.ProcessGroupGloo(store, index, count, timedelta(seconds=30))))
            except BaseException as error:  # a failed rank must not be mistaken for a silent one
                errors.append(error)

        threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[index] for index in range(count)]

    return run
