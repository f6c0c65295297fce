"""Warnings that follow from the records' facts; those of the evaluations are added to them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
from pydantic import JsonValue

from pipeline.records import StageRecord
from pipeline.report.stage_rows import fact_list, fact_mapping, fact_text
from pipeline.results import Results


def cautions(
    records: Mapping[str, StageRecord], results: Mapping[str, Results], translated: Path | None
) -> tuple[str, ...]:
    """Every warning of the run, in the order of the pipeline.

    Args:
        records: records by stage name.
        results: evaluations by track.
        translated: folder of translate_mr_to_ct, or None.
    """
    found = list(_from_facts(records))
    if translated is not None:
        found += _dicom_refusals(translated)
    for result in results.values():
        found += [warning for warning in result.warnings if warning not in found]
    return tuple(found)


def _from_facts(records: Mapping[str, StageRecord]) -> Iterator[str]:
    if "ingest" in records:
        facts = records["ingest"].facts
        if facts.get("quarantined"):
            yield f"{fact_text(facts, 'quarantined')} input files were quarantined; the table under Data says why."
        if "near_duplicates" in fact_list(facts, "subject_source"):
            yield (
                "The source names no subjects. Near-identical images were taken for one subject, so that the split "
                "keeps copies together, but two unlike images of one person may lie on both sides of it."
            )
    for found in fact_list(records["train_mr_to_ct"].facts, "domains_differ") if "train_mr_to_ct" in records else ():
        yield (
            f"The MR and the CT that the translator learned from without pairs differ in {found}. Such networks invent "
            "what one side shows more of, or remove it (Cohen 2018): look for structures that the MR does not have."
        )
    yield from _scope_cautions(records["translate_mr_to_ct"].facts if "translate_mr_to_ct" in records else {})
    if "export_lesions" in records and not records["export_lesions"].facts.get("released"):
        yield str(records["export_lesions"].facts.get("reason", ""))
    if records.get("prepare_mr_to_ct") and records["prepare_mr_to_ct"].facts.get("unit") == "grey":
        yield (
            "The translation data are pictures in grey levels, not scans in HU: errors are grey levels of a display "
            "window, sides of the patient are unknown, and no dose or density can be read from them."
        )


def _scope_cautions(facts: Mapping[str, JsonValue]) -> Iterator[str]:
    if facts.get("refused"):
        yield f"{fact_text(facts, 'refused')} MR lie outside the model's scope and were not translated; reasons below."
    if facts.get("risk_accepted"):
        yield (
            f"{fact_text(facts, 'risk_accepted')} pseudo-CT were made of MR outside the model's scope, by the reader's "
            "own decision: they are marked OUT OF SCOPE."
        )
    fast = fact_mapping(facts, "fast_path")
    if fast and not fast["taken"]:
        yield (
            f"A faster way of translating was asked for and not taken: it changes the mean absolute error by "
            f"{fast['change']} {fast['unit']} ({fast['basis']})."
        )


def _dicom_refusals(translated: Path) -> list[str]:
    cases = pl.read_parquet(translated / "cases.parquet", columns=["dicom_refusal"])
    refused = cases.drop_nulls().group_by("dicom_refusal").len().sort("dicom_refusal")
    return [f"No DICOM CT series for {number} of {cases.height} cases: {why}" for why, number in refused.iter_rows()]
