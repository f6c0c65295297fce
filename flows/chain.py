"""The order of a run's steps, free of any orchestrator: what each step needs, and how it is called.

    ingest ─┬─ prepare_lesions ── train_lesions ── synthesize_lesions ── evaluate_lesions ── export_lesions ─┬─ report
            └─ prepare_mr_to_ct ── train_mr_to_ct ── translate_mr_to_ct ── evaluate_mr_to_ct ────────────────┘

Stage commands walk the chain directly; the Prefect flow wraps the same steps in tasks. A step whose output exists is
found, not made again, so that asking for a late step costs moments once the earlier ones are done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flows.outside_workspace import refuse_outside
from pipeline.errors import InputError
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings, Track
from pipeline.spreading import Spread, here
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.promotions import ModelStage
    from pipeline.train.crew import Crew

Records = Mapping[str, StageRecord]


@dataclass(frozen=True)
class Call:
    """What every step is called with.

    Attributes:
        workspace: where outputs go.
        settings: the whole run's settings.
        input_folder: the scans; None where an ingested catalog is reused. It never leaves this process.
        progress: where to report progress.
        fresh: start trainings over instead of resuming them.
        spread: where independent series, volumes and cases are worked on.
        crew: the processes that train together; None for this one alone.
    """

    workspace: Workspace
    settings: RunSettings
    input_folder: Path | None = None
    progress: ProgressCallback = silent
    fresh: bool = False
    spread: Spread = here
    crew: "Crew | None" = None


@dataclass(frozen=True)
class Step:
    """One step of the chain.

    Attributes:
        needs: steps whose records it reads.
        run: makes or finds its output.
        track: the track it belongs to; None where both need it.
        title: what it does, for people.
        training: whether it trains networks.
    """

    needs: tuple[str, ...]
    run: Callable[[Call, Records], StageRecord]
    track: Track | None
    title: str
    training: bool = False


def _ingest(call: Call, records: Records) -> StageRecord:
    if call.input_folder is None:
        refuse_outside(call.workspace)
        return newest_catalog(call.workspace)
    from pipeline.ingest.stage import ingest

    return ingest(call.workspace, call.settings, call.input_folder, progress=call.progress, spread=call.spread)


def _prepare_lesions(call: Call, records: Records) -> StageRecord:
    from pipeline.prepare.stage import prepare_lesions

    catalog = records["ingest"]
    return prepare_lesions(call.workspace, call.settings, catalog, progress=call.progress, spread=call.spread)


def _prepare_mr_to_ct(call: Call, records: Records) -> StageRecord:
    from pipeline.prepare.stage import prepare_mr_to_ct

    catalog = records["ingest"]
    return prepare_mr_to_ct(call.workspace, call.settings, catalog, progress=call.progress, spread=call.spread)


def _train_lesions(call: Call, records: Records) -> StageRecord:
    from pipeline.generate.recipe import resolve_recipe
    from pipeline.lesion_attributes import attributes_from
    from pipeline.train.stage import train_lesions

    prepared = records["prepare_lesions"]
    # A typo in the recipe must come to light before hours of training, not after them.
    classes = cast("list[str]", prepared.facts["classes"])
    resolve_recipe(call.settings.generate.lesions, classes, attributes_from(prepared.facts))
    return _trained(call, "train_lesions", train_lesions, prepared)


def _train_mr_to_ct(call: Call, records: Records) -> StageRecord:
    from pipeline.train.stage import train_mr_to_ct

    return _trained(call, "train_mr_to_ct", train_mr_to_ct, records["prepare_mr_to_ct"])


def _trained(call: Call, step: "ModelStage", train: Callable[..., StageRecord], prepared: StageRecord) -> StageRecord:
    """A training, or the one of before where that is better."""
    from pipeline.train.crew import NO_CREW
    from pipeline.train.promotion import promote

    crew = call.crew or NO_CREW
    trained = train(call.workspace, call.settings, prepared, progress=call.progress, fresh=call.fresh, crew=crew)
    return promote(call.workspace, call.settings, step, prepared, trained)


def _synthesize_lesions(call: Call, records: Records) -> StageRecord:
    from pipeline.generate.stage import synthesize_lesions

    prepared, trained = records["prepare_lesions"], records["train_lesions"]
    others = [_train_again(call, prepared, seed) for seed in call.settings.generate.lesions.ensemble]
    return synthesize_lesions(
        call.workspace,
        call.settings,
        prepared,
        trained,
        others=others,
        progress=call.progress,
        spread=call.spread,
    )


def _train_again(call: Call, prepared: StageRecord, seed: int) -> StageRecord:
    """A further training of an ensemble, with a seed of its own; found where it was made before."""
    from pipeline.train.stage import train_lesions

    settings = call.settings.model_copy(update={"seed": seed})
    return train_lesions(call.workspace, settings, prepared, progress=call.progress, fresh=call.fresh)


def _translate_mr_to_ct(call: Call, records: Records) -> StageRecord:
    from pipeline.generate.stage import translate_mr_to_ct

    catalog, prepared, trained = records["ingest"], records["prepare_mr_to_ct"], records["train_mr_to_ct"]
    others = [_train_translator_again(call, prepared, seed) for seed in call.settings.generate.mr_to_ct.ensemble]
    return translate_mr_to_ct(
        call.workspace, call.settings, catalog, prepared, trained, others=others, progress=call.progress
    )


def _train_translator_again(call: Call, prepared: StageRecord, seed: int) -> StageRecord:
    """A further training of an ensemble, with a seed of its own; found where it was made before."""
    from pipeline.train.stage import train_mr_to_ct

    settings = call.settings.model_copy(update={"seed": seed})
    return train_mr_to_ct(call.workspace, settings, prepared, progress=call.progress, fresh=call.fresh)


def _evaluate_lesions(call: Call, records: Records) -> StageRecord:
    from pipeline.evaluate.stage import evaluate_lesions

    prepared, cohort = records["prepare_lesions"], records["synthesize_lesions"]
    return evaluate_lesions(
        call.workspace,
        call.settings,
        prepared,
        cohort,
        catalog=records["ingest"],
        trained=records["train_lesions"],
        progress=call.progress,
        spread=call.spread,
    )


def _evaluate_mr_to_ct(call: Call, records: Records) -> StageRecord:
    from pipeline.evaluate.stage import evaluate_mr_to_ct

    prepared, pseudo_ct = records["prepare_mr_to_ct"], records["translate_mr_to_ct"]
    return evaluate_mr_to_ct(
        call.workspace, call.settings, prepared, pseudo_ct, progress=call.progress, spread=call.spread
    )


def _export_lesions(call: Call, records: Records) -> StageRecord:
    from pipeline.export.stage import export_lesions

    prepared, cohort, evaluation = (
        records["prepare_lesions"],
        records["synthesize_lesions"],
        records["evaluate_lesions"],
    )
    return export_lesions(call.workspace, call.settings, prepared, cohort, evaluation, progress=call.progress)


def _report(call: Call, records: Records) -> StageRecord:
    from pipeline.report.stage import write_report

    return write_report(call.workspace, call.settings, records, progress=call.progress)


STEPS: dict[str, Step] = {
    "ingest": Step((), _ingest, None, "read and check the scans"),
    "prepare_lesions": Step(("ingest",), _prepare_lesions, "lesions", "cut lesion crops"),
    "train_lesions": Step(("prepare_lesions",), _train_lesions, "lesions", "train the lesion GAN", training=True),
    "synthesize_lesions": Step(
        ("prepare_lesions", "train_lesions"), _synthesize_lesions, "lesions", "make synthetic lesions"
    ),
    "prepare_mr_to_ct": Step(("ingest",), _prepare_mr_to_ct, "mr_to_ct", "bring MR and CT to one grid"),
    "train_mr_to_ct": Step(("prepare_mr_to_ct",), _train_mr_to_ct, "mr_to_ct", "train the CycleGAN", training=True),
    "translate_mr_to_ct": Step(
        ("ingest", "prepare_mr_to_ct", "train_mr_to_ct"), _translate_mr_to_ct, "mr_to_ct", "make pseudo-CT"
    ),
    "evaluate_lesions": Step(
        ("ingest", "prepare_lesions", "train_lesions", "synthesize_lesions"),
        _evaluate_lesions,
        "lesions",
        "judge the synthetic lesions",
    ),
    "export_lesions": Step(
        ("prepare_lesions", "synthesize_lesions", "evaluate_lesions"),
        _export_lesions,
        "lesions",
        "write the augmented dataset",
    ),
    "evaluate_mr_to_ct": Step(
        ("prepare_mr_to_ct", "translate_mr_to_ct"), _evaluate_mr_to_ct, "mr_to_ct", "judge the pseudo-CT"
    ),
    "report": Step((), _report, None, "write the report"),
}
"""Every step by name, in the order in which a run takes them. The report reads whatever was made before it."""


def steps_of(tracks: tuple[Track, ...]) -> list[str]:
    """Names of the steps that a run of these tracks takes, in order."""
    return [name for name, step in STEPS.items() if step.track is None or step.track in tracks]


def newest_catalog(workspace: Workspace) -> StageRecord:
    """The catalog that was ingested or found again last.

    Raises:
        InputError: nothing was ingested into this workspace yet.
    """
    from pipeline.ledger import Ledger
    from pipeline.stage_runner import verified_record

    for row in reversed(Ledger(workspace.ledger_path).rows("ingest")):
        if row.state in {"completed", "cached"}:
            record = verified_record(workspace.stage_folder("ingest", row.key))
            if record is not None and "role" not in record.facts:  # hosts and masks are no scans to learn from
                return record.model_copy(update={"cached": True})
    raise InputError(
        "This step needs scans that were ingested into the workspace.",
        found="no finished ingest in this workspace",
        allowed="a folder of scans given with --input, or an earlier `scanloom ingest`",
        change="Add --input DIR, or give the --workspace that holds your ingested scans.",
    )


def only_ingested(workspace: Workspace) -> bool:
    """Whether scans were ingested into the workspace, and no step of a track was ever begun."""
    from pipeline.ledger import Ledger

    stages = {row.stage for row in Ledger(workspace.ledger_path).rows()}
    return "ingest" in stages and stages.isdisjoint(name for name, step in STEPS.items() if step.track is not None)


@dataclass
class Chain:
    """Walks the steps of one run and keeps their records.

    Attributes:
        call: what every step is called with.
        records: records of the steps taken so far.
    """

    call: Call
    records: dict[str, StageRecord] = field(default_factory=dict)

    def order(self) -> list[str]:
        """Every step of the run, in order."""
        return steps_of(self.call.settings.tracks)

    def path_to(self, targets: tuple[str, ...]) -> list[str]:
        """The steps to take, in order, so that every target is reached; the report comes after all others.

        A report without new scans, where nothing but an ingest was ever taken, is a report on the data.

        Raises:
            InputError: a target belongs to a track that the settings leave out.
        """
        for target in targets:
            self._require_track(target)
        wanted: set[str] = set()
        if "report" in targets:
            data_only = self.call.input_folder is None and only_ingested(self.call.workspace)
            wanted = {"ingest"} if data_only else set(self.order())
        waiting = list(targets)
        while waiting:
            name = waiting.pop()
            wanted.add(name)
            waiting.extend(STEPS[name].needs)
        return [name for name in STEPS if name in wanted]

    def take(self, name: str) -> StageRecord:
        """Run one step, or find its output; its needs must have been taken before."""
        step = STEPS[name]
        needed = self.records if name == "report" else {need: self.records[need] for need in step.needs}
        record = step.run(self.call, needed)
        self.records[name] = record
        return record

    def _require_track(self, target: str) -> None:
        track = STEPS[target].track
        if track is not None and track not in self.call.settings.tracks:
            raise InputError(
                "A step can only run for a track that the settings name.",
                found=f"{target}, with tracks: {', '.join(self.call.settings.tracks)}",
                allowed=f"tracks that include {track}",
                change=f"Add --set tracks=[{track}], or use another preset.",
            )
