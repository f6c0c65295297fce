"""The one training loop: progress in images, log, grids, checkpoints, exact resume, alarms and what they do.

A CPU run that resumes from any checkpoint is bit-identical to an uninterrupted one: networks, optimizers, averages,
image pools, log and the state of every random generator are in the checkpoint, batches are drawn from those generators
alone, and alarms follow from the log. That holds for trainings that went back to a checkpoint as well.
"""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from skimage.io import imsave
from torch import Tensor

from models.losses import NonFiniteLossError
from pipeline.checkpoints import Checkpoint, save_checkpoint
from pipeline.errors import ResourceError, TrainingError
from pipeline.records import ProgressCallback
from pipeline.settings import LoopSettings
from pipeline.train.alarms import Finding, poor_data, raised, suspicious
from pipeline.train.course import Course
from pipeline.train.crew import NO_CREW, Crew
from pipeline.train.probe import Probe
from pipeline.train.stopping import stop_requests
from pipeline.train.trainee import Trainee
from pipeline.train.training_log import TrainingLog
from pipeline.train.training_state import checkpoint_of, is_out_of_memory, newest_checkpoint, restore
from pipeline.training_alarms import TrainingAlarm

STOPPED = "stopped"
"""Folder of the state in which a training was stopped; gone when it is complete."""


def train(
    trainee: Trainee,
    settings: LoopSettings,
    folder: Path,
    what: str,
    progress: ProgressCallback,
    crew: Crew = NO_CREW,
) -> dict[str, Any]:
    """Train to ``settings.images``, going on from the newest checkpoint in ``folder`` where there is one.

    Args:
        trainee: networks and data.
        settings: lengths, in images, and what alarms do.
        folder: output; holds ``checkpoints/``, ``grids/``, ``tensorboard/``, ``log.parquet``, ``model/``,
            ``alarms.json`` and ``alarms/``.
        what: unit for the progress, e.g. ``lesion training images``.
        progress: told after every step.
        crew: the processes that make the steps, of which this one leads.

    Returns:
        Facts: images, final terms, a sentence for every alarm, and what the trainee adds.

    Raises:
        TrainingError: an alarm that ends the training, e.g. a loss that is not finite; checkpoints before it stay.
        ResourceError: memory does not suffice for half the batch.
    """
    loop = _Loop(trainee, settings, folder, crew)
    resumed_at = loop.images
    with stop_requests() as asked:
        while loop.images < settings.images:
            if crew.stop_asked and asked.number is None:
                asked.number = signal.SIGTERM
            if asked.number is not None:
                loop.set_down()
                asked.deliver()
            if loop.step():
                progress(what, min(loop.images, settings.images), settings.images)
                loop.look()
    shutil.rmtree(folder / STOPPED, ignore_errors=True)
    loop.log.write(folder / "log.parquet")
    facts = trainee.save(folder / "model", loop.images)
    final = {name: value for name, value in loop.log.last.items() if name != "images"}
    alarms = [alarm.sentence() for alarm in loop.course.alarms]
    return {"images": loop.images, "resumed_at_images": resumed_at, "final": final, "alarms": alarms} | facts


class _Loop:
    """One training between two checkpoints.

    Attributes:
        images: training images shown so far.
        log: rows so far.
        course: alarms so far.
    """

    def __init__(self, trainee: Trainee, settings: LoopSettings, folder: Path, crew: Crew) -> None:
        self._trainee, self._settings, self._folder, self._crew = trainee, settings, folder, crew
        self._checkpoints = folder / "checkpoints"
        self._game = trainee.step.game()
        self._probe = Probe(trainee, settings.alarms.probe_images)
        self.images, self._before, self._owed = 0, 0, False
        self.log = TrainingLog(folder, [])
        found = newest_checkpoint(trainee, self._checkpoints)
        stopped = newest_checkpoint(trainee, folder / STOPPED)
        self.course = Course(folder, settings)
        if stopped is not None and found is not None and stopped.state["images"] >= found.state["images"]:
            found = stopped
        if found is not None:
            self._go_on_from(found)
            return
        self.course.keep_until(None)
        self._respond([*poor_data(trainee.variety), *trainee.mismatches])
        self._save()

    def step(self) -> bool:
        """Show one batch to the networks; False where the training went back instead."""
        done = self.images / self._settings.images
        factor = self._trainee.learning_rate_factor(done) * self.course.learning_rate_factor
        self._trainee.step.set_learning_rate_factor(factor)
        outcome = self._terms(factor, done)
        if outcome == "out of memory":  # handled here, where the failed step no longer holds tensors
            self._halve_batch()
            return False
        if isinstance(outcome, Finding):
            self._respond([outcome])
            return False
        self._before, self.images = self.images, self.images + self._trainee.batch_size
        self.log.add(outcome, self._trainee.batch_size)
        return True

    def look(self) -> None:
        """Whatever is due after a step: log row, alarms, grid, checkpoint."""
        last = self.images >= self._settings.images
        checkpoint_due = last or self._crossed(self._settings.checkpoint_every_images)
        closes = checkpoint_due or self._crossed(self._settings.log_every_images)
        if closes:  # at a checkpoint too, so that a resumed log has the same rows
            self.log.close_interval(self.images, self._probe.measure())
            alarms = self._settings.alarms
            if self._respond(raised(self.log.rows, self._game, alarms.patience, alarms.grace_images)):
                return
        if last or self._crossed(self._settings.grid_every_images):
            self._write_grid()
        if checkpoint_due or (closes and self._owed):
            # Where trouble may end in going back, the state that shows it is no good place to go back to.
            roll_back = self._settings.alarms.action == "roll_back"
            self._owed = roll_back and not last and self._suspicious()
            if not self._owed:
                self._save()

    def set_down(self) -> None:
        """Keep the state of this moment beside the checkpoints: a training never goes back to it for an alarm."""
        kept = checkpoint_of(self._trainee, self.images, self.log.rows)
        sums, counts = self.log.open_interval()
        state = kept.state | {"owed": self._owed, "interval": counts}
        save_checkpoint(self._folder / STOPPED, self.images, Checkpoint(kept.tensors | sums, state))
        self.log.close()

    def _terms(self, factor: float, done: float) -> dict[str, Tensor] | Finding | Literal["out of memory"]:
        try:
            with self._crew.step(factor, done, self._trainee.batch_size):
                return self._trainee.train_batch()
        except NonFiniteLossError as error:
            return Finding(
                "non_finite",
                "",
                f"{error.term} = {error.value}",
                "every loss and every gradient must be finite",
                "Lower the learning rates, set gradient_clip, or choose another objective.",
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return "out of memory"

    def _respond(self, findings: Sequence[Finding]) -> bool:
        """Record trouble, then do what the settings say; True where the training went back."""
        alarms = []
        for finding in findings:
            alarms.append(self._record(finding))
            if alarms[-1].to_images is not None:  # the others will come again, if they are still there
                return True
            if self.log.rows and self.log.rows[-1]["images"] == self.images:
                self.log.mark(finding.alarm)
        for alarm in alarms:
            if alarm.action == "stop":
                self._stop(alarm)
        return False

    def _record(self, finding: Finding) -> TrainingAlarm:
        """Write an alarm down with the picture of the moment; go back where that is its action."""
        action = self.course.action(finding)
        good = newest_checkpoint(self._trainee, self._checkpoints) if action == "roll_back" else None
        if action == "roll_back" and good is None:
            action = "stop"
        to_images = None if good is None else int(good.state["images"])
        alarm = self.course.record(finding, self.images, action, to_images, self._trainee.grid())
        self.log.add_alarm(alarm.sentence(), self.images)
        if good is not None:
            self._go_on_from(good)
        return alarm

    def _stop(self, alarm: TrainingAlarm) -> NoReturn:
        if self.log.rows:
            self.log.write(self._folder / "log.parquet")
        self.log.close()
        raise TrainingError(
            f"A training must not go on in trouble ({alarm.alarm}).",
            found=f"{alarm.found} after {alarm.images} images",
            allowed=f"no alarm; rule: {alarm.rule}",
            change=f"{alarm.advice} The last good checkpoint is kept.",
        )

    def _halve_batch(self) -> None:
        size, least = self._trainee.batch_size, self._trainee.smallest_batch
        if not self.course.may_halve or size // 2 < least or self._crew.shared:
            self.log.close()
            raise ResourceError(
                "A training step must fit into the memory of the device.",
                found=f"out of memory with a batch of {size}",
                allowed=f"batches of {least} or more that fit; the batch is halved once, by a training in one process",
                change="Lower batch_size, width or the image size, or use a device with more memory.",
            )
        good = newest_checkpoint(self._trainee, self._checkpoints)
        if good is None:  # the first one is written before the first step
            raise AssertionError
        finding = Finding(
            "out_of_memory",
            "",
            f"a batch of {size} did not fit; {size // 2} from here on",
            "a step must fit into memory",
            "Set batch_size to what fits: learning rates may suit one batch size and not another.",
        )
        to_images = int(good.state["images"])
        alarm = self.course.record(finding, self.images, "halve_batch", to_images, None)
        self.log.add_alarm(alarm.sentence(), self.images)
        self._go_on_from(good)

    def _go_on_from(self, found: Checkpoint) -> None:
        self.images, rows = restore(self._trainee, found)
        self._crew.restored(found)
        self.course.keep_until(self.images)
        self._trainee.batch_size, self._owed = self.course.batch_size, bool(found.state.get("owed", False))
        for path in (self._folder / "grids").glob("*.png"):
            if int(path.stem) > self.images:
                path.unlink()
        self.log.close()
        self.log = TrainingLog(self._folder, rows)
        if "interval" in found.state:
            self.log.reopen_interval(found.tensors, found.state["interval"])

    def _save(self) -> None:
        save_checkpoint(self._checkpoints, self.images, checkpoint_of(self._trainee, self.images, self.log.rows))

    def _write_grid(self) -> None:
        picture = self._trainee.grid()
        (self._folder / "grids").mkdir(exist_ok=True)
        imsave(self._folder / "grids" / f"{self.images:010d}.png", picture, check_contrast=False)
        self.log.add_picture(picture, self.images)

    def _suspicious(self) -> bool:
        return suspicious(self.log.rows, self._game, self._settings.alarms.grace_images)

    def _crossed(self, every: int) -> bool:
        return self._before // every < self.images // every
