"""What was done, in words, from the settings alone; every method with its source."""

from collections.abc import Mapping

from pipeline.report.tables import grouped_text
from pipeline.settings import RunSettings, TrainLesionsSettings, TrainMRToCTSettings

_OBJECTIVES: Mapping[str, str] = {
    "minimax": "the minimax objective (Goodfellow 2014, eq. 1)",
    "non_saturating": "the non-saturating objective (Goodfellow 2014, section 3)",
    "hinge": "the hinge objective (Lim and Ye 2017; Miyato 2018)",
    "least_squares": "the least-squares objective (Mao 2017)",
    "wasserstein": "the Wasserstein objective (Arjovsky 2017)",
    "relativistic": "the relativistic objective (Jolicoeur-Martineau 2018; Huang 2024)",
}
_GREY_DIALECT = "for 8-bit grey: PSNR and MS-SSIM on grey levels 0 to 255, slice by slice where a case is one slice"
_GENERATORS: Mapping[str, str] = {"unet": "U-Net", "resnet": "ResNet"}
_SUPERVISION: Mapping[str, str] = {
    "unpaired": "unpaired: no MR was ever shown together with the CT of the same subject",
    "paired": "paired: the distance to the registered CT of the same subject was part of the loss",
    "mixed": "mixed: the distance to a registered CT was part of the loss where a subject has one",
}
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
        f"Subjects, not images, were split into {_percent(split.train)} training, "
        f"{_percent(split.validation)} validation and {_percent(split.test)} test by a keyed hash, "
        f"unless the data came with a published split. "
        f"Every random choice follows from seed {settings.seed}.",
    )


def lesion_methods(settings: RunSettings) -> tuple[str, ...]:
    """The lesion track."""
    crops, train = settings.prepare.lesions, settings.train.lesions
    generate, evaluate = settings.generate.lesions, settings.evaluate.lesions
    return (
        f"Lesions were cut from {crops.modality} scans by their masks as crops of {crops.size_px} × {crops.size_px} "
        f"pixels of {crops.pixel_mm:g} mm, up to {crops.slices_per_lesion} a lesion; images without geometry were "
        f"brought to the same number of pixels.",
        _gan_sentence(train),
        f"Synthetic images were drawn from the moving average of the generator with truncation "
        f"{generate.truncation:g}; each image has its own recorded seed.",
        f"Fidelity and variety: KID (Bińkowski 2018), precision and recall (Kynkäänniemi 2019), density and coverage "
        f"(Naeem 2020) with k = {evaluate.neighbors}. Use: classifiers of equal budget, {evaluate.classifier_steps} "
        f"optimizer steps and {evaluate.seeds} seeds an arm, tested on real held-out subjects. Memorization: nearest "
        f"training image under mirroring, small shifts and noise, with a threshold set on held-out real images.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples.",
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
        _cyclegan_sentence(train),
        f"Pseudo-CT was made with the moving average of the generator in windows that overlap by "
        f"{_percent(generate.overlap)} and were blended.",
        f"Metrics follow the dialect {dialect}; the mask is the body outline dilated in plane by "
        f"{evaluate.mask_dilation_px} pixels. Errors are pseudo-CT minus CT. Image metrics do not predict dose: this "
        f"report claims no dose accuracy.",
        f"Intervals are 95 % percentile bootstrap intervals over subjects, {evaluate.bootstrap} resamples.",
    )


def _gan_sentence(train: TrainLesionsSettings) -> str:
    augment = (
        f"Differentiable augmentation ({', '.join(train.diff_augment)}; Zhao 2020) was applied to real and generated "
        "images alike."
        if train.diff_augment
        else "No differentiable augmentation was used."
    )
    penalty = "".join(f" {text} {value:g}." for text, value in _stabilizers(train) if value)
    return (
        f"{_FAMILIES[train.family]} was trained on "
        f"{grouped_text(train.images)} images in batches of {train.batch_size} with {_OBJECTIVES[train.objective]}. "
        f"{augment}{penalty} Learning rates: {train.learning_rate_generator:g} generator, "
        f"{train.learning_rate_discriminator:g} discriminator, Adam with β = {train.betas}."
    )


_FAMILIES: Mapping[str, str] = {
    "dcgan": "A conditional DCGAN (Radford 2016) with a projection discriminator (Miyato and Koyama 2018)",
    "dcgan_classic": "A conditional DCGAN by the guidelines of 2016 (Radford 2016; Mirza and Osindero 2014)",
}


def _stabilizers(train: TrainLesionsSettings) -> list[tuple[str, float]]:
    """What kept the discriminator in bounds, and by how much; 0 was off."""
    return [
        ("An R1 penalty on real images (Mescheder 2018) has weight", train.r1_gamma),
        ("An R2 penalty on generated images (Mescheder 2018) has weight", train.r2_gamma),
        ("A gradient penalty (Gulrajani 2017) has weight", train.gradient_penalty),
        ("The discriminator's weights were clipped (Arjovsky 2017) to", train.weight_clip),
        ("Discriminator steps for one of the generator:", train.critic_steps if train.critic_steps > 1 else 0),
        ("Labels of real images were smoothed (Salimans 2016) to", train.label_real if train.label_real < 1 else 0),
        ("Labels were softened by up to", train.label_softness),
        ("The share of swapped labels was", train.label_flip_rate),
        ("Noise on all images (Sønderby 2017) began at", train.instance_noise),
    ]


def _cyclegan_sentence(train: TrainMRToCTSettings) -> str:
    depth = "single slices" if train.slices == 1 else f"{train.slices} neighboring slices"
    paired = "" if train.supervision == "unpaired" else f", paired {train.lambda_paired:g}"
    return (
        f"A CycleGAN (Zhu 2017) with {_GENERATORS[train.generator]} generators was trained on "
        f"{grouped_text(train.images)} patches of {train.patch_px} × {train.patch_px} pixels, {depth} at a time, "
        f"with {_OBJECTIVES[train.objective]}. Supervision was "
        f"{_SUPERVISION[train.supervision]}. Weights: adversarial {train.lambda_adversarial:g}, cycle "
        f"{train.lambda_cycle:g}, identity {train.lambda_identity:g} × cycle{paired}. The learning rate of "
        f"{train.learning_rate:g} falls to zero over the last {_percent(1 - train.decay_from)} of training."
    )


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
