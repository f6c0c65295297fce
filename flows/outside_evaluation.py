"""What `scanloom evaluate lesions` and `scanloom evaluate mr-to-ct` do: judge images that scanloom did not make.

Such an evaluation has a workspace of its own: its inputs must not become the scans that a later `scanloom train` in
the same workspace goes on with.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from flows.outside_workspace import claim
from flows.progress import Display, display_for
from flows.requests import Options, load_settings, remembered
from flows.summary import print_summary
from pipeline.errors import InputError
from pipeline.lease import held
from pipeline.preflight import check_input
from pipeline.records import ProgressCallback, StageRecord
from pipeline.settings import RunSettings, Track
from pipeline.workspace import Workspace

Role = Literal["ct", "pseudo_ct", "mr", "mask", "ct_labels", "pseudo_ct_labels"]
_Make = Callable[[ProgressCallback], StageRecord]


def evaluate_cohorts(
    options: Options, console: Console, *, real: Path, synthetic: Path, test: Path | None
) -> Mapping[str, StageRecord]:
    """Judge a synthetic cohort against real images.

    Args:
        options: workspace, settings, debug.
        console: where progress and summary are shown.
        real: class folders or npz of the real images that the generator was trained on.
        synthetic: the same of the synthetic ones.
        test: the same of real images that the generator never saw.

    Returns:
        Records by step, as the report takes them.

    Raises:
        ScanloomError: the evaluation cannot begin or go on.
    """
    inputs = {"--real": real, "--synthetic": synthetic} | ({"--test": test} if test else {})
    with _Evaluation.begun(options, console, "lesions", inputs) as run:
        from pipeline.evaluate.outside_lesions import evaluate_outside_lesions
        from pipeline.ingest.stage import ingest
        from pipeline.prepare.outside_cohort import Sides, prepare_outside_images, take_in_cohort

        def read(folder: Path) -> _Make:
            return lambda progress: ingest(run.workspace, run.settings, folder, progress=progress)

        given = {"synthetic": synthetic} | ({"test": test} if test else {})
        catalogs = {side: run.take(f"ingest_{side}", read(folder)) for side, folder in given.items()}
        catalogs["real"] = run.take("ingest", read(real))  # last, so that `quarantine list` shows it
        sides = Sides(catalogs["real"], catalogs["synthetic"], catalogs.get("test"))
        prepared = run.take(
            "prepare_lesions",
            lambda progress: prepare_outside_images(run.workspace, run.settings, sides, progress=progress),
        )
        cohort = run.take(
            "synthesize_lesions",
            lambda progress: take_in_cohort(run.workspace, run.settings, sides, prepared, progress=progress),
        )
        run.take(
            "evaluate_lesions",
            lambda progress: evaluate_outside_lesions(
                run.workspace, run.settings, prepared, cohort, catalogs, progress=progress
            ),
        )
        return run.reported()


def evaluate_pseudo_ct(
    options: Options,
    console: Console,
    *,
    ct: Path,
    pseudo_ct: Path,
    mr: Path | None = None,
    mask: Path | None = None,
    segmentations: Path | None = None,
) -> Mapping[str, StageRecord]:
    """Judge pseudo-CT against CT.

    Args:
        options: workspace, settings, debug.
        console: where progress and summary are shown.
        ct: folder of the reference CT, NIfTI, MetaImage, NRRD or DICOM.
        pseudo_ct: folder of the pseudo-CT.
        mr: folder of the MR, for the trivial baselines.
        mask: folder of masks, > 0 inside; without it the CT's body outline is taken.
        segmentations: folder with the folders ``ct`` and ``pseudo-ct`` of a segmenter's label maps.

    Returns:
        Records by step, as the report takes them.

    Raises:
        ScanloomError: the evaluation cannot begin or go on.
    """
    folders: dict[Role, Path] = {"pseudo_ct": pseudo_ct}
    folders |= {"mr": mr} if mr else {}
    folders |= {"mask": mask} if mask else {}
    folders |= _label_folders(segmentations) if segmentations else {}
    folders |= {"ct": ct}  # last, so that `quarantine list` shows it
    inputs = {_OPTIONS.get(role, f"--{role.replace('_', '-')}"): folder for role, folder in folders.items()}
    with _Evaluation.begun(options, console, "mr_to_ct", inputs) as run:
        from pipeline.evaluate.outside_mr_to_ct import evaluate_outside_mr_to_ct
        from pipeline.ingest.outside_volumes import ingest_outside_volumes
        from pipeline.prepare.outside_pairs import prepare_outside_pairs

        def read(role: Role) -> _Make:
            return lambda progress: ingest_outside_volumes(
                run.workspace, run.settings, folders[role], role, progress=progress
            )

        named: dict[str, StageRecord] = {
            role: run.take("ingest" if role == "ct" else f"ingest_{role}", read(role)) for role in folders
        }
        pairs = run.take(
            "prepare_mr_to_ct",
            lambda progress: prepare_outside_pairs(run.workspace, run.settings, named, progress=progress),
        )
        run.take(
            "evaluate_mr_to_ct",
            lambda progress: evaluate_outside_mr_to_ct(run.workspace, run.settings, pairs, named, progress=progress),
        )
        return run.reported()


_OPTIONS: dict[Role, str] = {"ct_labels": "--segmentations (ct)", "pseudo_ct_labels": "--segmentations (pseudo-ct)"}


def _label_folders(segmentations: Path) -> dict[Role, Path]:
    found: dict[Role, Path] = {"ct_labels": segmentations / "ct", "pseudo_ct_labels": segmentations / "pseudo-ct"}
    missing = [folder.name for folder in found.values() if not folder.is_dir()]
    if missing:
        raise InputError(
            "Label maps of CT and of pseudo-CT lie in two folders, so that none is taken for the other.",
            found=f"no folder {' and no folder '.join(missing)} in the folder of --segmentations",
            allowed="ct/ and pseudo-ct/ with one label map a case each",
            change="Sort the label maps into these two folders.",
        )
    return found


_TITLES = {
    "ingest": "read and check the real images",
    "ingest_synthetic": "read and check the synthetic images",
    "ingest_test": "read and check the test images",
    "ingest_pseudo_ct": "read and check the pseudo-CT",
    "ingest_mr": "read and check the MR",
    "ingest_mask": "read and check the masks",
    "ingest_ct_labels": "read and check the label maps of the CT",
    "ingest_pseudo_ct_labels": "read and check the label maps of the pseudo-CT",
    "prepare_lesions": "bring real images to one size",
    "synthesize_lesions": "bring synthetic images to the same size",
    "evaluate_lesions": "judge the synthetic images",
    "prepare_mr_to_ct": "match cases and compare grids",
    "evaluate_mr_to_ct": "judge the pseudo-CT",
    "report": "write the report",
}
_NOT_SUMMARIZED = frozenset({"synthesize_lesions"})
"""Not ours: the summary would list it as an output of this run."""


@dataclass
class _Evaluation:
    """One evaluation at work.

    Attributes:
        workspace: opened and locked while the evaluation is entered.
        settings: with the one track.
        steps: number of steps that will be taken.
        records: of the steps taken.
    """

    workspace: Workspace
    settings: RunSettings
    console: Console
    steps: int
    display: Display
    began: float = field(default_factory=time.monotonic)
    records: dict[str, StageRecord] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def begun(
        cls, options: Options, console: Console, track: Track, inputs: Mapping[str, Path]
    ) -> Iterator["_Evaluation"]:
        """Check inputs and workspace, which stays locked for the time of the block; no input is read yet."""
        settings, origin = load_settings(options)
        for option, folder in inputs.items():
            _check(option, folder, options.workspace)
        workspace = Workspace.open(options.workspace)
        console.print(f"settings: {origin}; workspace: {workspace.root}", style="dim", markup=False, highlight=False)
        settings = settings.model_copy(update={"tracks": (track,)})
        steps = len(inputs) + (4 if track == "lesions" else 3)
        display = display_for(console)
        with held(workspace, "evaluate"):
            claim(workspace)
            with remembered(workspace, settings):
                try:
                    yield cls(workspace, settings, console, steps, display)
                finally:
                    display.close()

    def take(self, name: str, make: _Make) -> StageRecord:
        """Take one step and show it."""
        self.display.begin(name, _TITLES[name], len(self.records) + 1, self.steps)
        started = time.monotonic()
        try:
            record = make(self.display.advance)
        except BaseException:
            self.display.abandon()
            raise
        self.display.end(record.cached, time.monotonic() - started)
        self.records[name] = record
        return record

    def reported(self) -> Mapping[str, StageRecord]:
        """Write the report and print what was found."""
        from pipeline.report.stage import write_report

        shown = dict(self.records)
        self.take("report", lambda progress: write_report(self.workspace, self.settings, shown, progress=progress))
        self.display.close()
        summarized = {name: record for name, record in self.records.items() if name not in _NOT_SUMMARIZED}
        print_summary(self.console, self.workspace, summarized, time.monotonic() - self.began)
        return self.records


def _check(option: str, folder: Path, workspace: Path) -> None:
    """As `check_input`, naming the option."""
    try:
        check_input(folder, workspace)
    except InputError as error:
        raise InputError(
            error.rule, found=f"{option}: {error.found}", allowed=error.allowed, change=f"Correct {option}."
        ) from None
