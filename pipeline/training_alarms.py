"""Alarms of a training, as its output folder keeps them: ``alarms.json``, and one picture each in ``alarms/``.

Train writes them; evaluate, report and the command line read them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.errors import TrainingError
from pipeline.files import read_json, write_json
from pipeline.results import Column, ResultTable

ALARMS_FILE, PICTURES_FOLDER = "alarms.json", "alarms"
AlarmName = Literal[
    "discriminator_won",
    "discriminator_lost",
    "discriminator_at_chance",
    "diversity_lost",
    "data_without_variety",
    "domains_differ",
    "non_finite",
    "out_of_memory",
]
AlarmAction = Literal["warn", "stop", "roll_back", "halve_batch"]


class TrainingAlarm(BaseModel):
    """One alarm.

    Attributes:
        alarm: what is wrong.
        images: training images shown when it was raised.
        target: ending of the terms it is about, e.g. ``_ct``; empty for all.
        found: the figures.
        rule: what raised it.
        advice: what to change.
        action: what was done.
        to_images: training images of the checkpoint gone back to; None where the training did not go back.
        picture: file below the training's folder that shows what the networks made then; None where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    alarm: AlarmName
    images: int
    target: str = ""
    found: str
    rule: str
    advice: str
    action: AlarmAction
    to_images: int | None = None
    picture: str | None = None

    @property
    def holds_from(self) -> int:
        """Training images of the earliest checkpoint that is later than this alarm in the course of the training."""
        return self.images if self.to_images is None else self.to_images

    def sentence(self) -> str:
        """One line for people."""
        done = {
            "warn": "training went on",
            "stop": "training ended",
            "roll_back": f"went back to {self.to_images} images with lower learning rates",
            "halve_batch": f"went back to {self.to_images} images with half the batch",
        }
        return f"{self.alarm} after {self.images} images: {self.found}; {done[self.action]}"


_ALARMS = TypeAdapter(tuple[TrainingAlarm, ...])


def write_alarms(folder: Path, alarms: Sequence[TrainingAlarm]) -> None:
    """Write ``alarms.json``, atomically; an empty list too."""
    write_json(folder / ALARMS_FILE, [alarm.model_dump(mode="json") for alarm in alarms])


def read_alarms(folder: Path) -> tuple[TrainingAlarm, ...]:
    """The alarms of a training's folder in the order in which they were raised; none where there is no file.

    Raises:
        TrainingError: the file is damaged.
    """
    path = folder / ALARMS_FILE
    if not path.is_file():
        return ()
    try:
        return _ALARMS.validate_python(read_json(path))
    except ValueError:
        raise TrainingError(
            "The alarms of a training must be readable.",
            found=f"a damaged {ALARMS_FILE}",
            allowed="the file as it was written",
            change="Start the training again with --fresh.",
        ) from None


def alarm_table(alarms: Sequence[TrainingAlarm]) -> ResultTable:
    """The alarms as a table of results, one row each."""
    return ResultTable(
        key="alarms",
        title="Alarms of the training",
        caption="Raised by the flight recorder from the rows of the training log.",
        columns=(
            Column(key="alarm", title="Alarm", definition="What is wrong with the training."),
            Column(
                key="images", title="After", unit="images", definition="Training images shown until then.", digits=0
            ),
            Column(key="found", title="Found", definition="The figures that raised it."),
            Column(key="rule", title="Rule", definition="When it is raised."),
            Column(key="action", title="Action", definition="What was done, as train.*.alarms.action says."),
            Column(
                key="to_images",
                title="Back to",
                unit="images",
                definition="Training images of the checkpoint that the training went back to.",
                digits=0,
            ),
            Column(key="advice", title="Advice", definition="What to change."),
        ),
        rows=tuple(
            alarm.model_dump(include={"alarm", "images", "found", "rule", "action", "to_images", "advice"})
            for alarm in alarms
        ),
    )
