"""What stages hand each other: paths, hashes and facts, never arrays.

A record is small, JSON-serializable and free of patient data, so that it may pass through an orchestrator's database.
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

ProgressCallback = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``; ``what`` names the unit, e.g. ``training images``."""


def silent(what: str, done: int, total: int) -> None:
    """A `ProgressCallback` that shows nothing."""


class StageRecord(BaseModel):
    """One finished stage: where its output lies, what it was made from, what it is worth knowing.

    Attributes:
        stage: stage name, e.g. ``train_lesions``.
        key: content-hash key of inputs, settings and sources (hexadecimal).
        folder: output folder relative to the workspace.
        content_sha256: hash of the output's manifest.
        facts: small JSON facts for people and for later stages.
        cached: True where the output was found and verified instead of made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    key: str
    folder: str
    content_sha256: str
    facts: dict[str, JsonValue]
    cached: bool = False

    def path(self, workspace_root: Path) -> Path:
        """Absolute output folder."""
        return workspace_root / self.folder
