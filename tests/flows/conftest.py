import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.phantom import PhantomGrid
from pipeline.phantom.cohort import cohort_plan, write_cohort

COARSE_HEAD = PhantomGrid((75, 86, 27), (3.0, 3.0, 6.0), (9.0, 14.0))
ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten phantom heads on a coarse grid, in a folder whose name must never leave the process."""
    folder = tmp_path_factory.mktemp("cohort") / "Westwing-Maria-Lindgren"
    write_cohort(folder, 1, cohort_plan(heads=10, pelves=0), head_grid=COARSE_HEAD)
    return folder


@pytest.fixture(scope="session")
def scanloom() -> Command:
    """Run the command in a process of its own, as a user would."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        script = "from flows.command_line import main; main()"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SCANLOOM_"))}
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            cwd=ROOT,
            env=kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    return run
