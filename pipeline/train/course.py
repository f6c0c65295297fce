"""What alarms did to a training: the record of them, and the settings that they changed.

The record is written before anything is changed. A training that is killed in between, or at any later time, resumes
from a checkpoint and keeps of the record what lies before it: what came later happens again, in the same way.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.io import imsave

from pipeline.settings import LoopSettings
from pipeline.train.alarms import Finding
from pipeline.training_alarms import PICTURES_FOLDER, AlarmAction, TrainingAlarm, read_alarms, write_alarms


class Course:
    """The alarms of one training.

    Args:
        folder: output of the training; holds ``alarms.json`` and ``alarms/``.
        settings: of the loop.
    """

    def __init__(self, folder: Path, settings: LoopSettings) -> None:
        self._folder, self._settings = folder, settings
        self.alarms = list(read_alarms(folder))

    @property
    def learning_rate_factor(self) -> float:
        """Factor that going back has left on the learning rates."""
        return float(self._settings.alarms.learning_rate_factor ** self._count("roll_back"))

    @property
    def batch_size(self) -> int:
        """Images a step, halved where memory did not suffice."""
        return self._settings.batch_size >> self._count("halve_batch")

    @property
    def may_halve(self) -> bool:
        """Whether the batch has its first size still."""
        return not self._count("halve_batch")

    def action(self, finding: Finding) -> AlarmAction:
        """What is to be done about trouble: what the settings say, as far as that can be done."""
        asked = self._settings.alarms.action
        if finding.alarm == "domains_differ":
            return "warn"  # where it is to end the training, there is none: see `domain_mismatch`
        if finding.alarm == "data_without_variety":
            return "warn" if asked == "warn" else "stop"  # going back changes no image
        if asked == "roll_back" and self._count("roll_back") >= self._settings.alarms.max_rollbacks:
            return "stop"
        return "stop" if finding.alarm == "non_finite" and asked == "warn" else asked

    def keep_until(self, images: int | None) -> None:
        """Forget what came after the checkpoint at ``images``; None forgets everything."""
        self.alarms = [alarm for alarm in self.alarms if images is not None and alarm.holds_from <= images]
        write_alarms(self._folder, self.alarms)
        kept = {alarm.picture for alarm in self.alarms}
        for path in (self._folder / PICTURES_FOLDER).glob("*.png"):
            if path.relative_to(self._folder).as_posix() not in kept:
                path.unlink()

    def record(
        self,
        finding: Finding,
        images: int,
        action: AlarmAction,
        to_images: int | None,
        picture: npt.NDArray[np.uint8] | None,
    ) -> TrainingAlarm:
        """Write one alarm down, with its picture (H, W)."""
        name = None
        if picture is not None:
            name = f"{PICTURES_FOLDER}/{len(self.alarms):03d}-{finding.alarm}-{images:010d}.png"
            (self._folder / PICTURES_FOLDER).mkdir(exist_ok=True)
            imsave(self._folder / name, picture, check_contrast=False)
        alarm = TrainingAlarm(
            alarm=finding.alarm,
            images=images,
            target=finding.target,
            found=finding.found,
            rule=finding.rule,
            advice=finding.advice,
            action=action,
            to_images=to_images,
            picture=name,
        )
        self.alarms.append(alarm)
        write_alarms(self._folder, self.alarms)
        return alarm

    def _count(self, action: AlarmAction) -> int:
        return sum(alarm.action == action for alarm in self.alarms)
