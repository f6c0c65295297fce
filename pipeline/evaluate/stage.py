"""The evaluate stage: one evaluation for each track."""

from pydantic import BaseModel, JsonValue

from pipeline.device import choose_device, turn_on
from pipeline.evaluate.extractor_files import extractor_hash
from pipeline.evaluate.lesions import evaluate_cohort
from pipeline.evaluate.mr_to_ct import evaluate_translation
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import Results, write_results
from pipeline.settings import EvaluateLesionsSettings, EvaluateMRToCTSettings, RunSettings
from pipeline.spreading import Spread, here
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

_MODULE = "pipeline.evaluate.stage"


class SeededLesionsSettings(BaseModel, frozen=True):
    """What enters the key of a cohort's evaluation."""

    seed: int
    device: str
    lesions: EvaluateLesionsSettings
    extractor_sha256: tuple[str, ...] = ()


class SeededMRToCTSettings(BaseModel, frozen=True):
    """What enters the key of a translation's evaluation."""

    seed: int
    mr_to_ct: EvaluateMRToCTSettings


def evaluate_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    cohort: StageRecord,
    *,
    catalog: StageRecord | None = None,
    trained: StageRecord | None = None,
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Put a synthetic cohort to the test; output is a `pipeline.results.Results` and the release gate.

    Args:
        workspace: where the output goes.
        settings: ``evaluate.lesions``, ``seed`` and ``device``.
        prepared: of `prepare_lesions`.
        cohort: of `synthesize_lesions`.
        catalog: of `ingest`; without it, studies are not audited and subgroups not scored.
        trained: of `train_lesions`; without it, the arm on the discriminator is left out.
        progress: where to report progress.
        spread: where classifiers are trained, if that is on a CPU.
    """
    seeded = seeded_lesions(settings)

    def body(context: StageContext) -> dict[str, JsonValue]:
        results = evaluate_cohort(
            read_image_set(context.inputs["prepared"]),
            context.inputs["cohort"],
            seeded.lesions,
            seeded.seed,
            context.folder,
            context.progress,
            catalogs={"": context.inputs["catalog"]} if catalog else None,
            model=context.inputs["trained"] / "model" if trained else None,
            device=seeded.device,
            spread=spread,
            prepared_folder=None if spread is here else context.inputs["prepared"],
        )
        return finish(context, results)

    given = {"prepared": prepared, "cohort": cohort, "catalog": catalog, "trained": trained}
    records = {name: record for name, record in given.items() if record is not None}
    stage = Stage(
        "evaluate_lesions", _MODULE, body, turn=turn_on(choose_device(settings.device), settings.device_turns)
    )
    return run_stage(workspace, stage, seeded, records=records, progress=progress)


def seeded_lesions(settings: RunSettings) -> SeededLesionsSettings:
    """What the key of a cohort's evaluation takes from the settings and from the files that they name."""
    lesions = settings.evaluate.lesions
    hashes = tuple(extractor_hash(extractor) for extractor in lesions.extractors)
    device = choose_device(settings.device).type
    return SeededLesionsSettings(seed=settings.seed, device=device, lesions=lesions, extractor_sha256=hashes)


def evaluate_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    pseudo_ct: StageRecord,
    *,
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Score pseudo-CT against CT; output is a `pipeline.results.Results`."""
    seeded = SeededMRToCTSettings(seed=settings.seed, mr_to_ct=settings.evaluate.mr_to_ct)

    def body(context: StageContext) -> dict[str, JsonValue]:
        volumes = read_volume_set(context.inputs["prepared"])
        translated = context.inputs["pseudo_ct"]
        own = seeded.mr_to_ct
        return finish(context, evaluate_translation(volumes, translated, own, seeded.seed, context.progress, spread))

    stage = Stage("evaluate_mr_to_ct", _MODULE, body)
    return run_stage(
        workspace, stage, seeded, records={"prepared": prepared, "pseudo_ct": pseudo_ct}, progress=progress
    )


def finish(context: StageContext, results: Results) -> dict[str, JsonValue]:
    """Write the results; returns the facts of the record."""
    write_results(context.folder, results)
    return {
        "headlines": {headline.key: headline.value for headline in results.headlines},
        "references": {headline.key: headline.reference for headline in results.headlines},
        "verdicts": {verdict.key: verdict.outcome for verdict in results.verdicts},
    }
