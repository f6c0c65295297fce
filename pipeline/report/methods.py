"""What was done, in words, from the settings alone; every method with its source."""

from collections.abc import Mapping

from pipeline.report.training_methods import cyclegan_sentences, lesion_gan_sentences, percent
from pipeline.settings import EvaluateLesionsSettings, EvaluateMRToCTSettings, GenerateLesionsSettings, RunSettings

_GREY_DIALECT = "for 8-bit grey: PSNR and MS-SSIM on grey levels 0 to 255, slice by slice where a case is one slice"
_DIALECTS: Mapping[str, str] = {
    "synthrad2023": "SynthRAD2023 range: PSNR and MS-SSIM on HU clipped to [−1024, 3000]",
    "synthrad2025-metrics": "SynthRAD2025 metrics: PSNR and MS-SSIM on HU clipped to [−1024, 3000]",
    "synthrad2025-container": "SynthRAD2025 container: PSNR and MS-SSIM on HU clipped to [−1024, 3071]",
}


def common_methods(settings: RunSettings) -> tuple[str, ...]:
    """Ingest and split."""
    split = settings.prepare.split
    return (
        "Scans were parsed in child processes with limits on memory and time; what could not be trusted was set aside "
        "with a reason. Identities were replaced by pseudonyms made with a keyed hash before anything was stored.",
        f"Subjects, not images, were split into {percent(split.train)} training, "
        f"{percent(split.validation)} validation and {percent(split.test)} test by a keyed hash, "
        f"unless the data came with a published split. "
        f"Every random choice follows from seed {settings.seed}.",
    )


def lesion_methods(settings: RunSettings) -> tuple[str, ...]:
    """The lesion track."""
    crops, train = settings.prepare.lesions, settings.train.lesions
    generate, evaluate = settings.generate.lesions, settings.evaluate.lesions
    return (
        f"Lesions were cut from {crops.modality} scans by their masks as crops of {crops.size_px} × {crops.size_px} "
        f"pixels of {crops.pixel_mm:g} mm, up to {crops.slices_per_lesion} a lesion"
        f"{_attributes(crops.attributes)}; images without geometry were "
        f"brought to the same number of pixels.",
        lesion_gan_sentences(train),
        _cohort_sentences(generate),
        f"Fidelity and variety: KID (Bińkowski 2018) over {evaluate.kid_subsets} subsets, FID (Heusel 2017), precision "
        f"and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020) with k = {evaluate.neighbors}"
        f"{_extractors(evaluate)}.",
        _use_sentences(evaluate),
        "Memorization: nearest training image under mirroring, small shifts and noise, with a threshold set on "
        "held-out real images.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples "
        f"({evaluate.arm_resamples} for classifiers).",
    )


def mr_to_ct_methods(settings: RunSettings, unit: str = "HU") -> tuple[str, ...]:
    """The MR-to-CT track, of data in ``unit`` HU or grey."""
    prepare, train = settings.prepare.mr_to_ct, settings.train.mr_to_ct
    generate, evaluate = settings.generate.mr_to_ct, settings.evaluate.mr_to_ct
    spacing = " × ".join(f"{value:g}" for value in prepare.spacing_mm)
    bias = "with" if prepare.n4.enabled else "without"
    dialect = _DIALECTS[evaluate.dialect] if unit == "HU" else _GREY_DIALECT
    return (
        f"Volumes with geometry were brought to canonical orientation and {spacing} mm (right, anterior, superior), "
        f"{bias} N4 bias field correction of the MR (Tustison 2010). MR intensities were scaled by the percentiles "
        f"{prepare.mr_percentiles[0]:g} and {prepare.mr_percentiles[1]:g} inside the body.",
        cyclegan_sentences(train),
        f"Pseudo-CT was made with the moving average of the generator in windows that overlap by "
        f"{percent(generate.overlap)} and were blended.",
        f"Metrics follow the dialect {dialect}; the mask is the body outline dilated in plane by "
        f"{evaluate.mask_dilation_px} pixels. Errors are pseudo-CT minus CT.{_paths(evaluate) if unit == 'HU' else ''} "
        "Image metrics do not predict dose: this report claims no dose accuracy.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples.",
    )


_CLASSIFIERS: Mapping[str, str] = {
    "small_cnn": "a small convolutional network",
    "densenet121": "DenseNet-121",
    "resnet18": "ResNet-18",
}
_DISCRIMINATOR_ARMS: Mapping[str, str] = {
    "frozen": " One more classifier is a head on the frozen discriminator, trained on real images (Radford 2016).",
    "fine_tuned": " One more classifier is the discriminator, trained on as a whole on real images (Radford 2016).",
    "off": "",
}


def _attributes(names: tuple[str, ...]) -> str:
    return f", each with {', '.join(name.replace('_', ' ') for name in names)} as a condition" if names else ""


def _cohort_sentences(generate: GenerateLesionsSettings) -> str:
    """How images were drawn and which were made anew."""
    words = (
        f"Synthetic images were drawn from the moving average of the generator with truncation "
        f"{generate.truncation:g}; each image has its own recorded seed."
    )
    if generate.lines:
        words += f" The recipe has {len(generate.lines)} lines, each with a class, a number and attributes."
    if generate.ensemble:
        words += f" Generators of {len(generate.ensemble)} further trainings took turns with the run's own."
    if generate.filter.manifold:
        words += (
            " Images farther from the training images of their class than all but "
            f"{percent(generate.filter.manifold_share)} of real validation images were rejected and made anew."
        )
    if generate.filter.memorized:
        words += " Images that copy a training image were rejected and made anew."
    return words


def _extractors(evaluate: EvaluateLesionsSettings) -> str:
    names = ", ".join(extractor.name for extractor in evaluate.extractors)
    return f"; further feature spaces: {names}" if names else ""


def _use_sentences(evaluate: EvaluateLesionsSettings) -> str:
    """How the use for a classifier was measured."""
    thresholds = ", ".join(f"{threshold:g}" for threshold in evaluate.decision_thresholds)
    words = (
        f"Use: classifiers of equal budget ({_CLASSIFIERS[evaluate.classifier]}), {evaluate.classifier_steps} "
        f"optimizer steps and {evaluate.seeds} seeds an arm, tested on real held-out subjects."
        f"{_DISCRIMINATOR_ARMS[evaluate.discriminator_arm]}"
    )
    words += f" Sensitivity and specificity at probabilities of {thresholds}." if thresholds else ""
    if evaluate.subgroups:
        words += f" Subgroups by {', '.join(name.replace('_', ' ') for name in evaluate.subgroups)}."
    if evaluate.learning_real_shares:
        shares = ", ".join(percent(share) for share in evaluate.learning_real_shares)
        ratios = ", ".join(f"{ratio:g}" for ratio in evaluate.learning_synthetic_ratios)
        words += (
            f" Learning curves with {shares} of the training subjects and {ratios} synthetic images for a real one."
        )
    return words


def _paths(evaluate: EvaluateMRToCTSettings) -> str:
    powers = "those of tissues (ICRU 44)" if evaluate.stopping_power is None else "those of the settings"
    return (
        f" Water-equivalent path lengths run along {evaluate.wepl_directions} directions over half a turn; stopping "
        f"powers are {powers}."
    )
