"""Which model a workspace works with, and how that was decided: ``promoted.json`` in the workspace.

No times: a run that was stopped and gone on with leaves the same bytes as one that was not.
The record is written by `pipeline.train.promotion`; here it is read by whoever shows or keeps what it names.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.files import read_json, write_json
from pipeline.workspace import Workspace

PROMOTED_FILE = "promoted.json"


class Decision(BaseModel):
    """What became of one newly trained model.

    Attributes:
        model, last, prepared: content hashes of the new training, of the one in use before, of the data that judged.
        promoted: whether the new model took its place.
        measure: what was compared, on which split; None where nothing was.
        score, last_score: of the new model and of the last one; less is better.
        why: the rule that decided, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    last: str | None
    prepared: str
    promoted: bool
    measure: str | None
    score: float | None
    last_score: float | None
    why: str

    def sentence(self) -> str:
        """The decision for people."""
        scores = ""
        if self.score is not None and self.last_score is not None:
            scores = f" ({self.measure}: {self.score:.4g}, last {self.last_score:.4g})"
        return f"{'new model promoted' if self.promoted else 'last model kept'}: {self.why}{scores}"


class Promoted(BaseModel):
    """The model in use of one track, and all decisions, newest last."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    folder: str
    content_sha256: str
    decisions: tuple[Decision, ...] = ()


ModelStage = Literal["train_lesions", "train_mr_to_ct"]


def promoted_models(workspace: Workspace) -> dict[str, Promoted]:
    """The model in use by training stage; empty where nothing was trained yet."""
    path = workspace.root / PROMOTED_FILE
    stored = read_json(path) if path.is_file() else {}
    return {stage: Promoted.model_validate(value) for stage, value in stored.items()}


def write_promoted(workspace: Workspace, stage: ModelStage, promoted: Promoted) -> None:
    """Note the model in use of one track."""
    known = promoted_models(workspace) | {stage: promoted}
    write_json(workspace.root / PROMOTED_FILE, {name: each.model_dump(mode="json") for name, each in known.items()})
