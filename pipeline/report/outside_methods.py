"""What was done with images that scanloom did not make, in words, from settings and facts alone."""

from collections.abc import Mapping

from pipeline.records import StageRecord
from pipeline.settings import RunSettings

OUTSIDE_COHORT, OUTSIDE_PAIRS = "outside_cohort", "prepare_outside_pairs"
"""Stages that take in what was made elsewhere."""


def is_outside(records: Mapping[str, StageRecord]) -> bool:
    """Whether a report is of images from elsewhere."""
    return any(record.stage in (OUTSIDE_COHORT, OUTSIDE_PAIRS) for record in records.values())


def outside_methods(settings: RunSettings) -> tuple[str, ...]:
    """What holds for both tracks."""
    return (
        "Nothing was trained or generated here: the images were given, and how they were made is not known. Files were "
        "parsed in child processes with limits on memory and time; what could not be trusted was set aside with a "
        "reason. Names were replaced by pseudonyms made with a keyed hash before anything was stored. Every random "
        f"choice follows from seed {settings.seed}.",
    )


def outside_lesion_methods(settings: RunSettings, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    """Synthetic images against real ones."""
    edge, evaluate = settings.prepare.lesions.size_px, settings.evaluate.lesions
    rule = records["prepare_lesions"].facts.get("split_rule", "of unknown origin")
    return (
        f"Test images: {rule}. Real and synthetic images took the same way: grey, padded with the darkest level to a "
        f"square, resized to {edge} × {edge} pixels with linear interpolation. 16-bit pictures were brought to 8 bits "
        "over the smallest of the ranges 0 to 1023, 4095, 16383 and 65535 that holds all of them.",
        f"Fidelity and variety: KID (Bińkowski 2018), precision and recall (Kynkäänniemi 2019), density and coverage "
        f"(Naeem 2020) with k = {evaluate.neighbors}. Use: classifiers of equal budget, {evaluate.classifier_steps} "
        f"optimizer steps and {evaluate.seeds} seeds an arm, tested on real test images. Memorization: nearest "
        "training image under mirroring, small shifts and noise, with a threshold set on held-out real images; the "
        "same search with training and test images swapped tells whether the generator saw the test images.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples "
        f"({evaluate.arm_resamples} for classifiers).",
    )


def outside_pair_methods(settings: RunSettings, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    """Pseudo-CT against CT."""
    evaluate = settings.evaluate.mr_to_ct
    mask = records["prepare_mr_to_ct"].facts.get("mask_rule", "unknown")
    return (
        "CT and pseudo-CT were matched by case, and their grids compared as stored. Nothing was resampled: axes were "
        "put into one order where the files store them differently, and a pseudo-CT on another grid than its CT has "
        "no score.",
        f"Metrics follow the dialect {evaluate.dialect}; the mask is {mask}. Errors are pseudo-CT minus CT. Image "
        "metrics do not predict dose: this report claims no dose accuracy.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples.",
    )
