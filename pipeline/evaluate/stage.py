"""The evaluate stage: one evaluation for each track."""

from pydantic import BaseModel, JsonValue

from pipeline.evaluate.extractor_files import extractor_hash
from pipeline.evaluate.lesions import evaluate_cohort
from pipeline.evaluate.mr_to_ct import evaluate_translation
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import Results, write_results
from pipeline.settings import EvaluateLesionsSettings, EvaluateMRToCTSettings, RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

_MODULE = "pipeline.evaluate.stage"


class SeededLesionsSettings(BaseModel, frozen=True):
    """What enters the key of a cohort's evaluation."""

    seed: int
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
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Put a synthetic cohort to the test; output is a `pipeline.results.Results` and the release gate."""
    lesions = settings.evaluate.lesions
    hashes = tuple(extractor_hash(extractor) for extractor in lesions.extractors)
    seeded = SeededLesionsSettings(seed=settings.seed, lesions=lesions, extractor_sha256=hashes)

    def body(context: StageContext) -> dict[str, JsonValue]:
        images = read_image_set(context.inputs["prepared"])
        cohort_folder = context.inputs["cohort"]
        results = evaluate_cohort(images, cohort_folder, seeded.lesions, seeded.seed, context.folder, context.progress)
        return finish(context, results)

    stage = Stage("evaluate_lesions", _MODULE, body)
    return run_stage(workspace, stage, seeded, records={"prepared": prepared, "cohort": cohort}, progress=progress)


def evaluate_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    pseudo_ct: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Score pseudo-CT against CT; output is a `pipeline.results.Results`."""
    seeded = SeededMRToCTSettings(seed=settings.seed, mr_to_ct=settings.evaluate.mr_to_ct)

    def body(context: StageContext) -> dict[str, JsonValue]:
        volumes = read_volume_set(context.inputs["prepared"])
        translated = context.inputs["pseudo_ct"]
        return finish(
            context, evaluate_translation(volumes, translated, seeded.mr_to_ct, seeded.seed, context.progress)
        )

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
