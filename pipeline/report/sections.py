"""The sections of the page, each from the folders and records of its stages."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.files import read_json
from pipeline.pair_set import read_pair_set
from pipeline.prepared_set import read_image_set, read_volume_set
from pipeline.records import StageRecord
from pipeline.report.case_pictures import case_gallery
from pipeline.report.case_quality import quality_pages
from pipeline.report.data_tables import class_balance, lesion_counts, quarantine_table, subject_sources, volume_counts
from pipeline.report.lesion_pictures import class_pictures, copy_pairs
from pipeline.report.outside_pictures import pair_gallery
from pipeline.report.page import DataSection, LesionSection, Provenance, TranslationSection
from pipeline.report.stage_rows import stage_rows
from pipeline.report.tables import TableView, table_view
from pipeline.report.training_curves import training_view
from pipeline.results import Results
from pipeline.settings import RunSettings
from pipeline.settings_loading import to_yaml
from pipeline.stage_runner import RECORD_FILE


def data_section(records: Mapping[str, StageRecord], folders: Mapping[str, Path]) -> DataSection:
    """What ran on what."""
    ingest = records.get("ingest")
    quarantine = quarantine_table(folders["ingest"]) if "ingest" in folders else None
    tables = (lesion_counts(records), volume_counts(records), quarantine)
    return DataSection(
        stages=stage_rows(records),
        layout=str(ingest.facts.get("layout", "")) if ingest else "",
        layout_reason=str(ingest.facts.get("layout_reason", "")) if ingest else "",
        subject_sources=subject_sources(ingest) if ingest else (),
        tables=tuple(table for table in tables if table is not None),
        balance=class_balance(records),
    )


def lesion_section(folders: Mapping[str, Path], results: Results | None, settings: RunSettings) -> LesionSection | None:
    """The lesion track; None where it was not prepared."""
    if "prepare_lesions" not in folders:
        return None
    prepared = read_image_set(folders["prepare_lesions"])
    cohort, evaluation, trained = (
        folders.get(name) for name in ("synthesize_lesions", "evaluate_lesions", "train_lesions")
    )
    return LesionSection(
        classes=class_pictures(prepared, cohort, settings.seed, settings.report.images_per_class),
        copies=copy_pairs(prepared, cohort, evaluation) if cohort and evaluation else (),
        training=training_view(trained, "synthetic lesions") if trained else None,
        tables=_tables(results),
    )


def translation_section(
    folders: Mapping[str, Path], results: Results | None, settings: RunSettings
) -> TranslationSection | None:
    """The MR-to-CT track; None where it was not prepared."""
    if "prepare_mr_to_ct" not in folders:
        return None
    translated, trained = folders.get("translate_mr_to_ct"), folders.get("train_mr_to_ct")
    gallery, quality = None, None
    if translated:
        prepared = read_volume_set(folders["prepare_mr_to_ct"])
        gallery = case_gallery(prepared, translated, settings.report)
        model = trained / "model" if trained else None
        quality = quality_pages(prepared, translated, model, results, settings.report.quality_pages)
    return TranslationSection(
        gallery=gallery,
        quality=quality,
        training=training_view(trained, "MR, pseudo-CT and CT") if trained else None,
        tables=_tables(results),
    )


def outside_section(
    folders: Mapping[str, Path], results: Results | None, settings: RunSettings
) -> TranslationSection | None:
    """Pseudo-CT from elsewhere; None where there is none."""
    if "prepare_mr_to_ct" not in folders:
        return None
    gallery = pair_gallery(read_pair_set(folders["prepare_mr_to_ct"]), settings.report)
    return TranslationSection(gallery=gallery, training=None, tables=_tables(results))


def _tables(results: Results | None) -> tuple[TableView, ...]:
    return () if results is None else tuple(table_view(table) for table in results.tables)


def provenance(settings: RunSettings, records: Mapping[str, StageRecord], folders: Mapping[str, Path]) -> Provenance:
    """Settings, versions and hashes of the stages."""
    made = {name: read_json(folder / RECORD_FILE) for name, folder in folders.items()}
    versions = {package: version for entry in made.values() for package, version in entry["versions"].items()}
    inputs = made["ingest"]["inputs"] if "ingest" in made else {}
    hashes = [("Input files", inputs["input"])] if "input" in inputs else []
    hashes += [
        (f"Weights of {name}", str(record.facts["model_sha256"]))
        for name, record in records.items()
        if name.startswith("train_") and "model_sha256" in record.facts
    ]
    return Provenance(to_yaml(settings), settings.seed, tuple(sorted(versions.items())), tuple(hashes))
