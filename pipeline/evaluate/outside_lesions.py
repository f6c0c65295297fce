"""A synthetic cohort from elsewhere, put to the same test as scanloom's own, and searched for copies of test images.

Nobody here knows what the generator was trained on. A synthetic image that copies a *test* image shows that it was
trained on the test images too; every figure against them is then worth little.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from pipeline.device import choose_device, turn_on
from pipeline.evaluate.cohorts import load_study
from pipeline.evaluate.lesions import evaluate_cohort
from pipeline.evaluate.outside_refusals import with_refusals
from pipeline.evaluate.release_gate import check_release
from pipeline.evaluate.stage import finish, seeded_lesions
from pipeline.prepared_set import ImageSet, read_image_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.results import Verdict
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

RULE = (
    "bad: more synthetic images resemble a held-out real image than the 99th percentile of Binomial(n, rate) explains, "
    "the rate and the threshold being those of training images against held-out ones"
)
_PREFIXES = {"real": "", "test": "test-"}
"""What identifiers begin with in the prepared set, by side."""


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
        settings: ``evaluate.lesions``, ``seed`` and ``device``.
        prepared: of `prepare_outside_images`.
        cohort: of `take_in_cohort`.
        catalogs: the ingested sides by name, for what they refused.
        progress: where to report progress.
    """
    seeded = seeded_lesions(settings)

    def body(context: StageContext) -> dict[str, JsonValue]:
        images, folder = read_image_set(context.inputs["prepared"]), context.inputs["cohort"]
        opened = {name: context.inputs[f"catalog_{name}"] for name in catalogs}
        results = evaluate_cohort(
            images,
            folder,
            seeded.lesions,
            seeded.seed,
            context.folder,
            context.progress,
            catalogs={prefix: opened[side] for side, prefix in _PREFIXES.items() if side in opened},
            device=seeded.device,
        )
        verdict = copies_of_test_images(images, folder, seeded.seed)
        notes = [str(note) for side in ("prepared", "cohort") for note in _notes(context.facts[side].get("notes"))]
        told = with_refusals(results, opened)
        update = {"verdicts": (*told.verdicts, verdict), "warnings": (*notes, *told.warnings)}
        return finish(context, told.model_copy(update=update))

    records = {"prepared": prepared, "cohort": cohort} | {f"catalog_{name}": item for name, item in catalogs.items()}
    turn = turn_on(choose_device(settings.device), settings.device_turns)
    stage = Stage("evaluate_outside_lesions", "pipeline.evaluate.outside_lesions", body, turn=turn)
    return run_stage(workspace, stage, seeded, records=records, progress=progress)


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
