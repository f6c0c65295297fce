"""What ran on what: one sentence a stage, from the facts of its record.

What differs between two equal runs (seconds, where a training was resumed, whether an output was found or made) is left
to the ledger, so that equal runs give equal reports.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.records import StageRecord
from pipeline.report.tables import grouped_text
from pipeline.stage_runner import VOLATILE_FACTS

Facts = Mapping[str, JsonValue]


@dataclass(frozen=True)
class StageRow:
    """One stage in the list of what ran."""

    name: str
    title: str
    sentence: str
    key: str
    content_sha256: str


def stage_rows(records: Mapping[str, StageRecord]) -> tuple[StageRow, ...]:
    """Rows in the order of the pipeline; stages that the page does not know follow under their own names."""
    names = [name for name in _STAGES if name in records] + [name for name in records if name not in _STAGES]
    return tuple(_row(records[name], name) for name in names)


def stable_facts(facts: Facts) -> dict[str, JsonValue]:
    """Facts without what differs between two equal runs."""
    return {name: value for name, value in facts.items() if name not in VOLATILE_FACTS}


def fact_text(facts: Facts, name: str) -> str:
    """A fact for a sentence; ``an unknown number of`` where it is missing."""
    value = facts.get(name)
    if value is None:
        return "an unknown number of"
    return grouped_text(value) if isinstance(value, int) else str(value)


def fact_mapping(facts: Facts, name: str) -> dict[str, JsonValue]:
    """A fact that is a mapping; empty where it is missing."""
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def fact_list(facts: Facts, name: str) -> list[str]:
    """A fact that is a list of words; empty where it is missing."""
    value = facts.get(name)
    return [str(item) for item in value] if isinstance(value, list) else []


def _row(record: StageRecord, name: str) -> StageRow:
    # A set from elsewhere takes the place of a stage's output; its record says by which stage it was really made.
    unknown = (name.replace("_", " "), lambda facts: "")
    title, sentence = _STAGES.get(record.stage if record.stage in _OUTSIDE else name, unknown)
    return StageRow(name, title, sentence(record.facts), record.key, record.content_sha256)


def _ingest(facts: Facts) -> str:
    kinds = ", ".join(f"{count} {name}" for name, count in fact_mapping(facts, "modalities").items())
    return (
        f"{fact_text(facts, 'series')} series or images{f' ({kinds})' if kinds else ''} of "
        f"{fact_text(facts, 'subjects')} subjects, {fact_text(facts, 'lesions')} lesions; "
        f"{fact_text(facts, 'quarantined')} files quarantined"
    )


def _contact_sheet(facts: Facts) -> str:
    flags = ", ".join(f"{count} {name}" for name, count in fact_mapping(facts, "flags").items())
    return (
        f"{fact_text(facts, 'flagged')} of {fact_text(facts, 'series')} volumes flagged{f': {flags}' if flags else ''}"
    )


def _prepare_lesions(facts: Facts) -> str:
    size = fact_text(facts, "size_px")
    return f"{len(fact_list(facts, 'classes'))} classes, {size} × {size} pixels"


def _prepare_mr_to_ct(facts: Facts) -> str:
    return (
        f"{fact_text(facts, 'mr_volumes')} MR and {fact_text(facts, 'ct_volumes')} CT volumes, "
        f"{fact_text(facts, 'pairs')} registered pairs, unit {facts.get('unit', 'unknown')}"
    )


def _train(facts: Facts) -> str:
    networks = ", ".join(
        f"{name.replace('_', ' ')} {grouped_text(count)}" if isinstance(count, int) else name
        for name, count in fact_mapping(facts, "parameters").items()
    )
    parameters = f"; parameters: {networks}" if networks else ""
    return f"{fact_text(facts, 'images')} training images on {facts.get('device', 'an unknown device')}{parameters}"


def _synthesize(facts: Facts) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in fact_mapping(facts, "per_class").items())
    return f"{fact_text(facts, 'images')} synthetic images{f': {classes}' if classes else ''}"


def _translate(facts: Facts) -> str:
    return f"{fact_text(facts, 'cases')} pseudo-CT, {fact_text(facts, 'dicom_series')} of them as DICOM CT series too"


def _evaluate(facts: Facts) -> str:
    return "metrics, verdicts and warnings below"


def _export(facts: Facts) -> str:
    return (
        f"{fact_text(facts, 'real')} real and {fact_text(facts, 'synthetic')} synthetic images, "
        f"{fact_text(facts, 'left_out')} synthetic images left out"
    )


def _outside_images(facts: Facts) -> str:
    return f"{_prepare_lesions(facts)}; {facts.get('split_rule', 'a split of unknown origin')}"


def _outside_cohort(facts: Facts) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in fact_mapping(facts, "per_class").items())
    return f"{fact_text(facts, 'images')} synthetic images, not made here{f': {classes}' if classes else ''}"


def _outside_pairs(facts: Facts) -> str:
    return (
        f"{fact_text(facts, 'cases')} pairs of CT and pseudo-CT, {fact_text(facts, 'comparable')} of them on one grid; "
        f"{fact_text(facts, 'unmatched')} files without a partner"
    )


_OUTSIDE: dict[str, tuple[str, Callable[[Facts], str]]] = {
    "prepare_outside_images": ("Real images", _outside_images),
    "outside_cohort": ("Synthetic images", _outside_cohort),
    "prepare_outside_pairs": ("Match CT and pseudo-CT", _outside_pairs),
}

_STAGES: dict[str, tuple[str, Callable[[Facts], str]]] = _OUTSIDE | {
    "ingest_synthetic": ("Ingest synthetic images", _ingest),
    "ingest_test": ("Ingest test images", _ingest),
    "ingest_pseudo_ct": ("Ingest pseudo-CT", _ingest),
    "ingest_mr": ("Ingest MR", _ingest),
    "ingest_mask": ("Ingest masks", _ingest),
    "ingest": ("Ingest", _ingest),
    "contact_sheet": ("Contact sheet", _contact_sheet),
    "prepare_lesions": ("Prepare lesions", _prepare_lesions),
    "train_lesions": ("Train lesion GAN", _train),
    "synthesize_lesions": ("Synthesize lesions", _synthesize),
    "evaluate_lesions": ("Evaluate lesions", _evaluate),
    "export_lesions": ("Export augmented dataset", _export),
    "prepare_mr_to_ct": ("Prepare MR and CT", _prepare_mr_to_ct),
    "train_mr_to_ct": ("Train MR to CT", _train),
    "translate_mr_to_ct": ("Make pseudo-CT", _translate),
    "evaluate_mr_to_ct": ("Evaluate pseudo-CT", _evaluate),
}
