"""Settings of both trainings and of the loop that they share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.frozen_settings import Count, Fraction, FrozenSettings, Positive

Weight = Annotated[float, Field(ge=0)]

_STACKS = (1, 3, 5)
_VOLUME_STEP = 4
"""A network of three dimensions halves slices twice, and needs two of them at its coarsest."""


class AlarmSettings(FrozenSettings):
    """What happens when the flight recorder finds a training in trouble; the rules are those of `docs/training.md`."""

    action: Literal["warn", "stop", "roll_back"] = Field(
        "warn",
        description="Go on and say so, end the training, or go back to the last good checkpoint with lower learning "
        "rates. A loss that is not finite ends the training where it would only be warned of.",
    )
    patience: Count = Field(4, description="Log rows one after the other that must show the trouble.")
    grace_images: Annotated[int, Field(ge=0)] = Field(
        4096, description="Log rows up to this many training images do not count: untrained networks look troubled."
    )
    max_rollbacks: Count = Field(3, description="Later trouble ends the training.")
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Factor of all learning rates at each going back."
    )
    probe_images: Annotated[int, Field(ge=0, le=512)] = Field(
        64, description="Images made and compared with real ones at each log row; 0 leaves that out."
    )


class LoopSettings(FrozenSettings):
    """What both trainings share; every length is counted in training images."""

    images: Count = Field(200_000, description="Training images shown to the networks.")
    batch_size: Count = 32
    log_every_images: Count = 512
    checkpoint_every_images: Count = 8192
    grid_every_images: Count = 16384
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="bfloat16: passes of the networks in mixed precision; weights and losses stay float32. auto: "
        "bfloat16 on a device that has units for it, float32 elsewhere, where it would be slower.",
    )
    gradient_clip: Weight = Field(0.0, description="Largest gradient norm of a step; longer ones are cut. 0 is off.")
    alarms: AlarmSettings = AlarmSettings()


class TrainLesionsSettings(LoopSettings):
    """Conditional DCGAN (Radford 2016; projection discriminator, Miyato 2018; DiffAugment, Zhao 2020)."""

    family: Literal["dcgan", "dcgan_classic"] = Field(
        "dcgan",
        description="`dcgan_classic`: the guidelines of 2016 to the letter, batch norm in both networks; `dcgan`: the "
        "same shape with conditional normalization, projection, spectral norm and minibatch spread.",
    )
    objective: Literal["non_saturating", "hinge", "least_squares", "minimax", "wasserstein", "relativistic"] = (
        "non_saturating"
    )
    width: Count = Field(32, description="Channels of the widest resolution; doubles as resolution halves.")
    latent_size: Count = 64
    learning_rate_generator: Positive = 1e-3
    learning_rate_discriminator: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.0, 0.99)
    ema_decay: Fraction = Field(0.998, description="Decay of the generator's moving average, per step.")
    diff_augment: tuple[Literal["brightness", "contrast", "translation", "cutout"], ...] = ("translation",)
    adaptive_augment: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Augment with a probability that rises while D is further ahead than this, and falls otherwise "
        "(Karras 2020: 0.6); 0: augment always.",
    )
    spectral_norm: bool = Field(True, description="Spectral normalization of D; the family `dcgan` only.")
    r1_gamma: Weight = Field(0.0, description="Weight of the R1 penalty, on real images; 0 is off.")
    r2_gamma: Weight = Field(0.0, description="Weight of the R2 penalty, on synthetic images; 0 is off.")
    gradient_penalty: Weight = Field(0.0, description="Weight of (‖∇D‖ − 1)² (WGAN-GP: 10); 0 is off.")
    weight_clip: Weight = Field(0.0, description="D's weights stay in [−c, c] (WGAN: 0.01); 0 is off.")
    critic_steps: Count = Field(1, description="Steps of D for one of G (Wasserstein: 5).")
    upsampling: Literal["transposed", "resize"] = Field(
        "transposed",
        description="How G doubles its maps: 4×4 transposed convolutions, or `resize`: nearest neighbor and a 3×3 "
        "convolution, without a checkerboard (Odena 2016); the family `dcgan` only.",
    )
    decay_from: Fraction = Field(
        1.0, description="Share of training after which both learning rates fall linearly to 0; 1: never."
    )
    virtual_batch: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Images of the reference of virtual batch normalization in G (Salimans 2016); 0: batch norm."
    )
    label_real: Fraction = Field(1.0, description="What D is told real images are; 0.9 is one-sided smoothing.")
    label_softness: Fraction = Field(0.0, description="Labels are drawn from ranges of this width beside 1 and 0.")
    label_flip_rate: Fraction = Field(0.0, description="Share of images whose label is swapped.")
    instance_noise: Weight = Field(
        0.0, description="Noise on all that D sees, in units of [−1, 1]; fades to 0 over the training."
    )
    mirror: bool = Field(False, description="Show left-right mirrored crops too; keep off where side matters.")

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        classic = self.family == "dcgan_classic"
        if classic and self.r1_gamma + self.r2_gamma + self.gradient_penalty > 0:
            raise ValueError("dcgan_classic has batch norm in D, which rules out r1_gamma, r2_gamma, gradient_penalty")
        if classic and self.virtual_batch > 0:
            raise ValueError("virtual_batch is for the family dcgan; dcgan_classic keeps the batch norm of 2016")
        if classic and self.upsampling != "transposed":
            raise ValueError("upsampling is for the family dcgan; dcgan_classic has transposed convolutions")
        if self.adaptive_augment > 0 and not self.diff_augment:
            raise ValueError("adaptive_augment steers diff_augment: name its policies, or set adaptive_augment to 0")
        if not classic and self.spectral_norm and self.weight_clip > 0:
            raise ValueError("weight_clip and spectral_norm exclude each other; set spectral_norm to false")
        softened = self.label_real < 1 or self.label_softness > 0 or self.label_flip_rate > 0
        if softened and self.objective not in ("minimax", "non_saturating", "least_squares"):
            raise ValueError(f"the objective {self.objective} has no labels that label_* could soften")
        if self.label_real - self.label_softness <= self.label_softness or self.label_flip_rate >= 0.5:
            raise ValueError("label_real - label_softness must be above label_softness, and label_flip_rate below 0.5")
        return self


class TrainMRToCTSettings(LoopSettings):
    """CycleGAN (Zhu 2017) with supervision by setting; defaults are the paper's where it names one."""

    batch_size: Count = 4
    generator: Literal["unet", "resnet", "light", "resnet_2017"] = Field(
        "unet", description="`light` works from half resolution down, for CPUs; `resnet_2017` is the paper's."
    )
    width: Count = Field(24, description="Channels of a generator at full resolution (`light`: at half).")
    blocks: Count = Field(9, description="Residual blocks of the ResNets; the paper has 6 for 128 pixels, 9 from 256.")
    discriminator_width: Count = Field(32, description="Channels of the first layer of a PatchGAN.")
    discriminator_scales: Annotated[int, Field(ge=1, le=3)] = Field(
        1, description="PatchGANs at full, half and quarter resolution."
    )
    dimensions: Literal[2, 3] = Field(
        2, description="3: convolutions along the slices too, on patches of 8 slices or more; the generator is a U-Net."
    )
    slices: Count = Field(
        1, description="Neighboring slices a network sees: 1 is 2-D, 3 or 5 is 2.5-D; with `dimensions: 3` 8, 12, 16 …"
    )
    patch_px: Annotated[int, Field(ge=32, multiple_of=16)] = 96
    supervision: Literal["unpaired", "paired", "mixed", "registered"] = Field(
        "unpaired",
        description="`registered` is `paired` with a network that bends translations onto imperfect partners.",
    )
    objective: Literal["least_squares", "non_saturating", "minimax", "hinge", "wasserstein", "relativistic"] = (
        "least_squares"
    )
    penalty: Weight = Field(0.0, description="Weight of R1 (relativistic: R1 and R2) on the discriminators.")
    weight_clip: Weight = Field(0.0, description="Bound of discriminator weights; the Wasserstein objective needs one.")
    learning_rate: Positive = 2e-4
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    lambda_adversarial: Annotated[float, Field(ge=0)] = 1.0
    lambda_cycle: Annotated[float, Field(ge=0)] = 10.0
    lambda_identity: Annotated[float, Field(ge=0)] = Field(0.5, description="As a share of lambda_cycle.")
    lambda_paired: Annotated[float, Field(ge=0)] = Field(
        50.0, description="Weight of the L1 distance to the registered CT, in HU (not with unpaired)."
    )
    lambda_smooth: Weight = Field(10.0, description="Weight of the roughness of deformations (registered only).")
    lambda_weak: Weight = Field(
        0.0,
        description="Weight of the L1 distance to a guess of the CT made from other subjects' CTs; 0: none is made.",
    )
    lambda_bone: Weight = Field(0.0, description="Weight of the Dice of bone with the partner's or the guess's bone.")
    lambda_bone_entropy: Weight = Field(
        0.0, description="Weight of the same masks' cross-entropy; finds bone of few pixels, as in pelves."
    )
    lambda_gradient: Weight = Field(0.0, description="Weight of edges that the MR does not have (Hiasa 2018).")
    lambda_mind: Weight = Field(0.0, description="Weight of the difference of MIND descriptors (Heinrich 2012).")
    lambda_body: Weight = Field(0.0, description="Weight of anything but air outside the body.")
    warm_images: Annotated[int, Field(ge=0)] = Field(
        0, description="First images, in which adversarial, cycle and identity terms are left out."
    )
    pool_size: Annotated[int, Field(ge=0)] = 50
    ema_decay: Fraction = 0.995
    decay_from: Fraction = Field(
        0.5, description="Share of training after which the learning rate falls linearly to 0."
    )
    outside_weight: Fraction = Field(0.1, description="Weight of the paired distance outside the body; inside it is 1.")
    mirror: bool = Field(True, description="Show left-right mirrored patches too (MR and CT alike).")
    augment_shape: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Strength of random bends, rotations and scales of MR and CT; 1 is strong, 0 is none."
    )
    augment_look: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Strength of random contrast, gain and noise of MR; 1 is strong, 0 is none."
    )
    coordinates: bool = Field(True, description="Give the networks the position in the body as three more channels.")
    domain_mismatch: Literal["warn", "refuse"] = Field(
        "warn",
        description="What is done where MR and CT of a game without pairs show other body parts, lesions, sizes or "
        "slice positions: networks then invent or remove what one side shows more of (Cohen 2018).",
    )
    domain_mismatch_limit: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="Largest distance of both sides, 0 for equal shares and 1 for nothing in common."
    )

    @model_validator(mode="after")
    def _fits_dimensions(self) -> Self:
        if self.dimensions == 2 and self.slices not in _STACKS:
            raise ValueError(f"slices is {self.slices}; in two dimensions 1, 3 or 5 (or set dimensions to 3)")
        if self.dimensions == 2:
            return self
        if self.slices % _VOLUME_STEP or self.slices < 2 * _VOLUME_STEP:
            raise ValueError(f"slices is {self.slices}; in three dimensions 8, 12, 16, 20 …, since networks halve them")
        if self.generator != "unet":
            raise ValueError(f"generator is {self.generator}; in three dimensions there is `unet` alone")
        if self.supervision == "registered":
            raise ValueError(
                "supervision is registered, which bends in the plane; with dimensions: 3 use paired or mixed"
            )
        if self.discriminator_scales != 1:
            raise ValueError(f"discriminator_scales is {self.discriminator_scales}; in three dimensions 1")
        return self


class TrainSettings(FrozenSettings):
    """Both trainings."""

    lesions: TrainLesionsSettings = TrainLesionsSettings()
    mr_to_ct: TrainMRToCTSettings = TrainMRToCTSettings()
