"""How the networks were trained, in words, from the settings alone; every method with its source."""

from collections.abc import Mapping

from pipeline.report.tables import grouped_text
from pipeline.settings import AlarmSettings, TrainLesionsSettings, TrainMRToCTSettings

_OBJECTIVES: Mapping[str, str] = {
    "minimax": "the minimax objective (Goodfellow 2014, eq. 1)",
    "non_saturating": "the non-saturating objective (Goodfellow 2014, section 3)",
    "hinge": "the hinge objective (Lim and Ye 2017; Miyato 2018)",
    "least_squares": "the least-squares objective (Mao 2017)",
    "wasserstein": "the Wasserstein objective (Arjovsky 2017)",
    "relativistic": "the relativistic objective (Jolicoeur-Martineau 2018; Huang 2024)",
}
_GENERATORS: Mapping[str, str] = {
    "unet": "U-Net",
    "resnet": "ResNet",
    "light": "light (half resolution and below)",
    "resnet_2017": "ResNet (as published, with transposed convolutions and tanh)",
}
_PRECISIONS: Mapping[str, str] = {
    "float32": "",
    "bfloat16": " Networks ran in bfloat16.",
    "auto": " Networks ran in bfloat16 on a device with units for it, else in float32.",
}
_SUPERVISION: Mapping[str, str] = {
    "unpaired": "unpaired: no MR was ever shown together with the CT of the same subject",
    "paired": "paired: the distance to the registered CT of the same subject was part of the loss",
    "mixed": "mixed: the distance to a registered CT was part of the loss where a subject has one",
    "registered": "registered: translations were bent onto imperfect partners by a network trained beside (Kong 2021) "
    "before the distance was taken",
}


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:g} %"


def lesion_gan_sentences(train: TrainLesionsSettings) -> str:
    """The lesion GAN."""
    augment = _augmentation(train)
    penalty = "".join(f" {text} {value:g}." for text, value in _stabilizers(train) if value)
    return (
        f"{_FAMILIES[train.family]}{_spectral(train)} was trained on "
        f"{grouped_text(train.images)} images in batches of {train.batch_size} with {_OBJECTIVES[train.objective]}. "
        f"{augment}{penalty} Learning rates: {train.learning_rate_generator:g} generator, "
        f"{train.learning_rate_discriminator:g} discriminator, Adam with β = {train.betas}. "
        f"Widest resolution: {train.width} channels; latent of {train.latent_size}.{_course(train)}"
        f"{_doubling(train)}{_loop_sentences(train)}"
    )


def _doubling(train: TrainLesionsSettings) -> str:
    resize = train.upsampling == "resize"
    return " The generator doubles by nearest neighbor and convolution (Odena 2016)." if resize else ""


def _augmentation(train: TrainLesionsSettings) -> str:
    if not train.diff_augment:
        return "No differentiable augmentation was used."
    often = (
        f", with a probability that was steered toward a lead of the discriminator of {train.adaptive_augment:g} "
        "(Karras 2020)"
        if train.adaptive_augment
        else ""
    )
    policies = ", ".join(train.diff_augment)
    return f"Differentiable augmentation ({policies}; Zhao 2020) was applied to real and generated images alike{often}."


def _course(train: TrainLesionsSettings) -> str:
    if train.decay_from == 1:
        return ""
    return f" Both learning rates fall to zero over the last {percent(1 - train.decay_from)} of training."


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
        ("Images of the reference of virtual batch normalization (Salimans 2016):", train.virtual_batch),
    ]


def cyclegan_sentences(train: TrainMRToCTSettings) -> str:
    """The CycleGAN."""
    depth = "single slices" if train.slices == 1 else f"{train.slices} neighboring slices"
    depth += " in three dimensions (Çiçek 2016)" if train.dimensions == 3 else ""
    paired = (
        ""
        if train.supervision == "unpaired"
        else f", paired {train.lambda_paired:g} ({train.outside_weight:g} of it outside the body)"
    )
    coordinates = " Networks were told the position in the body." if train.coordinates else ""
    extras = "".join(f" {text} {value:g}." for text, value in _translation_extras(train) if value)
    return (
        f"A CycleGAN (Zhu 2017) with {_GENERATORS[train.generator]} generators was trained on "
        f"{grouped_text(train.images)} patches of {train.patch_px} × {train.patch_px} pixels, {depth} at a time, "
        f"with {_OBJECTIVES[train.objective]}. Supervision was "
        f"{_SUPERVISION[train.supervision]}. Weights: adversarial {train.lambda_adversarial:g}, cycle "
        f"{train.lambda_cycle:g}, identity {train.lambda_identity:g} × cycle{paired}. The learning rate of "
        f"{train.learning_rate:g} falls to zero over the last {percent(1 - train.decay_from)} of training, in "
        f"batches of {train.batch_size}, Adam with β = {train.betas}. Widths: {train.width} and "
        f"{train.discriminator_width} channels; discriminators saw a pool of {train.pool_size} earlier images."
        f"{coordinates}{extras}{_domains(train)}{_loop_sentences(train)}"
    )


def _domains(train: TrainMRToCTSettings) -> str:
    """How both sides of a game without pairs were compared first."""
    if train.supervision not in ("unpaired", "mixed") or train.lambda_adversarial == 0:
        return ""
    done = "would have ended the training" if train.domain_mismatch == "refuse" else "is a warning of this report"
    return (
        " Body parts, lesions, sizes and slice positions of MR and CT were compared before the training (Cohen 2018); "
        f"a distance of their distributions above {train.domain_mismatch_limit:g} {done}."
    )


def _translation_extras(train: TrainMRToCTSettings) -> list[tuple[str, float]]:
    """What a translator's training adds to the paper's terms, where it does."""
    registered = train.supervision == "registered"
    resnet = train.generator.startswith("resnet")
    return [
        ("Residual blocks:", train.blocks if resnet else 0),
        ("PatchGANs at scales:", train.discriminator_scales if train.discriminator_scales > 1 else 0),
        ("R1 penalty on the discriminators, weight", train.penalty),
        ("Discriminator weights clipped to", train.weight_clip),
        ("Roughness of deformations, weight", train.lambda_smooth if registered else 0),
        ("Distance to a guess of the CT made from other subjects' CTs, weight", train.lambda_weak),
        ("Dice of bone, weight", train.lambda_bone),
        ("Cross-entropy of bone, weight", train.lambda_bone_entropy),
        ("Edges that the MR does not have (Hiasa 2018), weight", train.lambda_gradient),
        ("Difference of MIND descriptors (Heinrich 2012), weight", train.lambda_mind),
        ("Anything but air outside the body, weight", train.lambda_body),
        ("Images before the adversarial, cycle and identity terms began:", train.warm_images),
        ("Random bends, rotations and scales, strength", train.augment_shape),
        ("Random contrast, gain and noise of the MR, strength", train.augment_look),
    ]


def _spectral(train: TrainLesionsSettings) -> str:
    return ", spectrally normalized (Miyato 2018)," if train.spectral_norm and train.family == "dcgan" else ""


def _loop_sentences(train: TrainLesionsSettings | TrainMRToCTSettings) -> str:
    """What both trainings share."""
    words = f" The moving average of the generator decays by {train.ema_decay:g} a step."
    words += " Mirrored images were shown too." if train.mirror else ""
    words += f" Gradients were clipped to a norm of {train.gradient_clip:g}." if train.gradient_clip else ""
    words += _PRECISIONS[train.precision]
    return words + _alarm_sentence(train.alarms)


def _alarm_sentence(alarms: AlarmSettings) -> str:
    done = {
        "warn": "is recorded, and the training goes on",
        "stop": "ends the training",
        "roll_back": f"sends the training back to the last good checkpoint, {alarms.max_rollbacks} times at the most, "
        f"with learning rates times {alarms.learning_rate_factor:g}",
    }[alarms.action]
    return f" By the flight recorder's rule, trouble in {alarms.patience} log rows in a row {done}."
