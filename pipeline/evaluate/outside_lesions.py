"""A synthetic cohort from elsewhere, put to the same test as scanloom's own, and searched for copies of test images.

Nobody here knows what the generator was trained on. A synthetic image that copies a *test* image shows that it was
trained on the test images too; every figure against them is then worth little.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from pipeline.evaluate.cohorts import load_study
from pipeline.evaluate.extractor_files import extractor_hash
from pipeline.evaluate.lesions import evaluate_cohort
from pipeline.evaluate.outside_refusals import refusal_notes, refusal_table
from pipeline.evaluate.release_gate import check_release
from pipeline.evaluate.stage import SeededLesionsSettings, finish
from pipeline.prepared_set import ImageSet, read_image_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import Results, Verdict
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

RULE = (
    "bad: more synthetic images resemble a held-out real image than the 99th percentile of Binomial(n, rate) explains, "
    "the rate and the threshold being those of training images against held-out ones"
)


def evaluate_outside_lesions(
    workspace: Workspace,
    settings: RunSettings,
    prepared: StageRecord,
    cohort: StageRecord,
    catalogs: Mapping[str, StageRecord],
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Evaluate a cohort from elsewhere; output is a `pipeline.results.Results` and the release gate.

    Args:
        workspace: where the output goes.
        settings: ``evaluate.lesions`` and ``seed``.
        prepared: of `prepare_outside_images`.
        cohort: of `take_in_cohort`.
        catalogs: the ingested sides by name, for what they refused.
        progress: where to report progress.
    """
    lesions = settings.evaluate.lesions
    hashes = tuple(extractor_hash(extractor) for extractor in lesions.extractors)
    seeded = SeededLesionsSettings(seed=settings.seed, lesions=lesions, extractor_sha256=hashes)

    def body(context: StageContext) -> dict[str, JsonValue]:
        images, folder = read_image_set(context.inputs["prepared"]), context.inputs["cohort"]
        results = evaluate_cohort(images, folder, lesions, settings.seed, context.folder, context.progress)
        return finish(context, _completed(results, context, images, folder, settings.seed, catalogs))

    records = {"prepared": prepared, "cohort": cohort} | {f"catalog_{name}": item for name, item in catalogs.items()}
    stage = Stage("evaluate_outside_lesions", "pipeline.evaluate.outside_lesions", body)
    return run_stage(workspace, stage, seeded, records=records, progress=progress)


def _completed(
    results: Results,
    context: StageContext,
    images: ImageSet,
    cohort: Path,
    seed: int,
    catalogs: Mapping[str, StageRecord],
) -> Results:
    """The results with what is special of a cohort from elsewhere."""
    folders = {name: context.inputs[f"catalog_{name}"] for name in catalogs}
    refused = refusal_table(folders)
    notes = [str(note) for side in ("prepared", "cohort") for note in _notes(context.facts[side].get("notes"))]
    return results.model_copy(
        update={
            "verdicts": (*results.verdicts, copies_of_test_images(images, cohort, seed)),
            "tables": (*results.tables, *((refused,) if refused else ())),
            "warnings": (*notes, *refusal_notes(folders), *results.warnings),
        }
    )


def copies_of_test_images(images: ImageSet, cohort: Path, seed: int) -> Verdict:
    """Whether the cohort holds copies of held-out real images: the release gate with both real sides swapped."""
    study = load_study(images, cohort)
    gate = check_release(replace(study, train=study.held_out, held_out=study.train), seed)
    flags = int(gate.flags.sum())
    if gate.search is None:
        sentence = f"Copies of test images could not be searched: {len(study.train)} training images to calibrate on."
        return Verdict(key="test_copies", outcome="neutral", sentence=sentence, rule=RULE)
    figures = (
        f"{flags} of {len(study.synthetic)} synthetic images exceed a correlation of {gate.search.threshold:.3f} with "
        f"a held-out real image; chance explains up to {gate.search.allowed_flags}"
    )
    if gate.blocked:
        sentence = f"The generator seems to have seen the test images: {figures}. Figures against them are inflated."
        return Verdict(key="test_copies", outcome="bad", sentence=sentence, rule=RULE)
    return Verdict(key="test_copies", outcome="good", sentence=f"No sign of copied test images: {figures}.", rule=RULE)


def _notes(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
