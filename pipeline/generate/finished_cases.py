"""Cases that a killed translation had finished, so that the next run goes on after them.

While a stage's folder is under construction, ``finished/<case>.json`` holds a case's table row and the hashes of its
files, written after them. A case counts as finished only where every hash holds; all other files are removed.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from pipeline.files import read_json, sha256_file, write_json

_FOLDER = "finished"


class FinishedCases:
    """What is finished in a folder under construction; opening it removes what belongs to no finished case.

    Args:
        folder: of the stage, under construction.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._journal = folder, folder / _FOLDER
        self._cases: dict[str, dict[str, Any]] = {}
        self._known: set[Path] = set()
        for path in sorted(self._journal.glob("*.json")):
            self._take(path)
        for path in self._files() - self._known:
            path.unlink()
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and path != self._journal and not any(path.iterdir()):
                path.rmdir()
        self._journal.mkdir(exist_ok=True)

    def finished(self, name: str) -> dict[str, Any] | None:
        """The table row of a case that is finished, else None."""
        return self._cases.get(name)

    def finish(self, name: str, case: dict[str, Any]) -> None:
        """Record that a case is finished: every file that was added since the last one is its own."""
        if re.fullmatch(r"[\w.-]+", name) is None:
            raise ValueError(f"{name!r} is no file name")
        added = sorted(self._files() - self._known)
        hashes = {path.relative_to(self._folder).as_posix(): sha256_file(path) for path in added}
        write_json(self._journal / f"{name}.json", {"case": case, "files": hashes})
        self._known.update(added)

    def close(self) -> None:
        """Remove the records once all cases are written."""
        shutil.rmtree(self._journal)

    def _files(self) -> set[Path]:
        return {path for path in self._folder.rglob("*") if path.is_file() and path.parent != self._journal}

    def _take(self, path: Path) -> None:
        """Take a record whose files are whole; others are removed, and their case is made again."""
        stored = read_json(path)
        files = {self._folder / name: digest for name, digest in stored["files"].items()}
        if all(item.is_file() and sha256_file(item) == digest for item, digest in files.items()):
            self._cases[path.stem] = stored["case"]
            self._known.update(files)
        else:
            path.unlink()
