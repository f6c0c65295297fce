"""Training commands under ``torchrun``: the first process takes the steps, the others follow its training."""

import os
from pathlib import Path

from rich.console import Console

from flows.requests import Options, load_settings
from flows.words import TORCHRUN_VARIABLE


def train_together(
    options: Options, step: str, console: Console, *, input_folder: Path | None = None, fresh: bool = False
) -> None:
    """Reach a training step in the processes that torchrun started, or in this one alone.

    Raises:
        ScanloomError: a step cannot begin or go on.
    """
    from flows.stage_commands import run_steps

    if TORCHRUN_VARIABLE not in os.environ:
        run_steps(options, (step,), console, input_folder=input_folder, fresh=fresh)
        return
    from pipeline.train.crew import follow, joined

    settings, _ = load_settings(options)
    with joined(settings.device) as crew:
        if crew.leads:
            run_steps(options, (step,), console, input_folder=input_folder, fresh=fresh, crew=crew)
        else:
            follow(crew)
