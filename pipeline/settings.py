"""Settings of a run: frozen sections with defaults, limits and a description of every key that needs one.

`pipeline.settings_loading` reads them from YAML, environment and command line.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.frozen_settings import CLASS_NAME as CLASS_NAME
from pipeline.frozen_settings import ClassName, Count, Fraction, Positive
from pipeline.frozen_settings import FrozenSettings as FrozenSettings
from pipeline.generate_settings import GenerateLesionsSettings as GenerateLesionsSettings
from pipeline.generate_settings import GenerateMRToCTSettings as GenerateMRToCTSettings
from pipeline.generate_settings import GenerateSettings
from pipeline.generate_settings import PlacementSettings as PlacementSettings

Track = Literal["lesions", "mr_to_ct"]
DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]
Resamples = Annotated[int, Field(ge=100)]
Weight = Annotated[float, Field(ge=0)]


class IngestSettings(FrozenSettings):
    """How scans are read."""

    layout: Literal[
        "auto", "scans", "bids", "synthrad", "decathlon", "nnunet", "class_folders", "medmnist_npz", "slice_pairs"
    ] = Field("auto", description="How the input folder is organized; `auto` looks and says what it found and why.")
    timeout_s: Positive = Field(60, description="Wall-clock limit for parsing one series, in seconds.")
    memory_limit_mb: Count = Field(1400, description="Memory limit of the parsing child process, in MiB.")
    min_slices: Count = Field(3, description="Volumes with fewer slices are quarantined.")
    gantry_tilt: Literal["correct", "refuse"] = Field(
        "correct", description="CT stacked off its normal: resampled by shear and flagged, or refused."
    )
    derived: Literal["skip", "keep"] = Field(
        "skip", description="DICOM images that their ImageType calls DERIVED, e.g. parameter maps and reformats."
    )
    nifti_volume: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Which volume of a 4-D NIfTI file to take, from 0; null refuses 4-D files."
    )
    form_conflict: Literal["refuse", "sform", "qform"] = Field(
        "refuse",
        description="A NIfTI file whose sform and qform differ by more than 0.1 voxel: refused, or which holds.",
    )
    max_non_finite: Fraction = Field(
        0, description="Largest share of NaN or infinite voxels that is replaced by the smallest finite value."
    )
    lesion_classes: dict[Annotated[str, Field(min_length=1)], ClassName] | None = Field(
        None,
        description="Name of a structure, segment or label → lesion class; names may hold * and ?, case does not "
        "count, the first that matches decides, what matches none is left out. null: labels keep their names, "
        "RTSTRUCT is refused.",
    )
    burned_in_text: Literal["quarantine", "keep"] = Field(
        "quarantine", description="Scans that seem to hold text in their pixels."
    )
    dates: Literal["drop", "shift"] = Field(
        "drop", description="Study dates: left out, or shifted by a secret number of days for each patient."
    )
    deface: bool = Field(False, description="Blank the face of head scans before anything is stored.")


class SplitSettings(FrozenSettings):
    """Shares of subjects in the three splits; they must add up to 1."""

    train: Fraction = 0.6
    validation: Fraction = 0.15
    test: Fraction = 0.25

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, found {self.train + self.validation + self.test:g}")
        return self


class PrepareLesionsSettings(FrozenSettings):
    """Lesion crops with class."""

    modality: Literal["MR", "CT"] = Field("MR", description="Modality of the scans that lesions are cut from.")
    size_px: Literal[32, 64, 128] = Field(64, description="Side of a crop in pixels.")
    pixel_mm: Positive = Field(1.0, description="Pixel size of a crop in mm; field of view = size_px × pixel_mm.")
    slices_per_lesion: Count = Field(5, description="Crops per lesion at the most, spread around its largest section.")
    min_section_px: Count = Field(12, description="Sections with fewer lesion pixels are left out.")
    min_images_per_class: Count = Field(8, description="A class with fewer training images is refused.")
    attributes: tuple[Literal["size_mm", "sequence", "body_part"], ...] = Field(
        (), description="What the generator is told beside the class; size_mm is a section's diameter, from its mask."
    )


class N4Settings(FrozenSettings):
    """N4 bias field correction (Tustison 2010), through SimpleITK."""

    enabled: bool = True
    shrink: Count = Field(2, description="The field is estimated on an image shrunk by this factor.")
    iterations: tuple[Count, ...] = Field((20, 15, 10), description="Iterations for each level.")


class PrepareMRToCTSettings(FrozenSettings):
    """MR and CT volumes on a common spacing."""

    spacing_mm: tuple[Positive, Positive, Positive] = Field(
        (1.0, 1.0, 3.0), description="Voxel size (R, A, S) that MR and CT are resampled to, in mm."
    )
    n4: N4Settings = N4Settings()
    mr_percentiles: tuple[float, float] = Field(
        (1.0, 99.0), description="Percentiles of the MR inside the body that span the unit range."
    )
    body_parts: tuple[str, ...] | None = Field(
        None, description="DICOM body parts to keep, e.g. [HEAD]; null keeps all."
    )
    pair_by: Literal["frame_of_reference", "subject"] = Field(
        "frame_of_reference",
        description="Which CT counts as registered to an MR: one in the same DICOM frame of reference, or any of the "
        "same subject (only where you know that they are registered, e.g. NIfTI resampled to each other).",
    )


class PrepareSettings(FrozenSettings):
    """From catalog to arrays."""

    split: SplitSettings = SplitSettings()
    lesions: PrepareLesionsSettings = PrepareLesionsSettings()
    mr_to_ct: PrepareMRToCTSettings = PrepareMRToCTSettings()


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
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: passes of the networks in mixed precision; weights and losses stay float32."
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
    spectral_norm: bool = Field(True, description="Spectral normalization of D; the family `dcgan` only.")
    r1_gamma: Weight = Field(0.0, description="Weight of the R1 penalty, on real images; 0 is off.")
    r2_gamma: Weight = Field(0.0, description="Weight of the R2 penalty, on synthetic images; 0 is off.")
    gradient_penalty: Weight = Field(0.0, description="Weight of (‖∇D‖ − 1)² (WGAN-GP: 10); 0 is off.")
    weight_clip: Weight = Field(0.0, description="D's weights stay in [−c, c] (WGAN: 0.01); 0 is off.")
    critic_steps: Count = Field(1, description="Steps of D for one of G (Wasserstein: 5).")
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
    generator: Literal["unet", "resnet"] = "unet"
    width: Count = Field(24, description="Channels of a generator at full resolution.")
    discriminator_width: Count = Field(32, description="Channels of the first layer of a PatchGAN.")
    slices: Literal[1, 3, 5] = Field(1, description="Neighboring slices a network sees: 1 is 2-D, more is 2.5-D.")
    patch_px: Annotated[int, Field(ge=32, multiple_of=16)] = 96
    supervision: Literal["unpaired", "paired", "mixed"] = "unpaired"
    objective: Literal["least_squares", "non_saturating", "hinge"] = "least_squares"
    learning_rate: Positive = 2e-4
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    lambda_adversarial: Annotated[float, Field(ge=0)] = 1.0
    lambda_cycle: Annotated[float, Field(ge=0)] = 10.0
    lambda_identity: Annotated[float, Field(ge=0)] = Field(0.5, description="As a share of lambda_cycle.")
    lambda_paired: Annotated[float, Field(ge=0)] = Field(
        50.0, description="Weight of the L1 distance to the registered CT (paired and mixed only)."
    )
    pool_size: Annotated[int, Field(ge=0)] = 50
    ema_decay: Fraction = 0.995
    decay_from: Fraction = Field(
        0.5, description="Share of training after which the learning rate falls linearly to 0."
    )
    outside_weight: Fraction = Field(0.1, description="Weight of the paired distance outside the body; inside it is 1.")
    mirror: bool = Field(True, description="Show left-right mirrored patches too (MR and CT alike).")
    coordinates: bool = Field(True, description="Give the networks the position in the body as three more channels.")


class TrainSettings(FrozenSettings):
    """Both trainings."""

    lesions: TrainLesionsSettings = TrainLesionsSettings()
    mr_to_ct: TrainMRToCTSettings = TrainMRToCTSettings()


class ExtractorSettings(FrozenSettings):
    """A feature extractor that the user brings, beside the two that need no file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$", description="Names it in reports.")
    path: str = Field(description="ONNX file, or safetensors weights.")
    architecture: Literal["onnx", "densenet121", "resnet18", "resnet50"] = Field(
        "onnx", description="ONNX carries its own; weights are of MONAI's network of this name, in 2-D."
    )
    edge_px: Annotated[int, Field(ge=16, le=1024)] = Field(224, description="Images are resized to this edge.")
    channels: Literal[1, 3] = Field(3, description="Grey is repeated over the channels.")
    mean: float = Field(0.5, description="Subtracted from intensities in [0, 1].")
    deviation: Positive = Field(0.5, description="Divides them afterward.")


class EvaluateLesionsSettings(FrozenSettings):
    """Fidelity, diversity, memorization and use of a synthetic cohort."""

    classifier_steps: Count = Field(300, description="Optimizer steps of every classifier, the same in each arm.")
    seeds: Annotated[int, Field(ge=2)] = Field(5, description="Classifiers trained for each arm.")
    classifier: Literal["small_cnn", "densenet121", "resnet18"] = Field(
        "small_cnn", description="Network that judges use; the latter two are MONAI's, untrained, for 64 px and more."
    )
    discriminator_arm: Literal["frozen", "fine_tuned", "off"] = Field(
        "frozen", description="Classifier on the GAN's discriminator, trained on real images: its head, or all of it."
    )
    subgroups: tuple[Literal["modality", "body_part", "sequence", "source", "lesion_size"], ...] = Field(
        ("modality", "body_part", "sequence", "lesion_size"),
        description="What the catalog tells test images apart by: each of its values is scored on its own.",
    )
    decision_thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5,), description="Probabilities from which a class is called, for sensitivity and specificity by class."
    )
    learning_real_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="Shares of training subjects for a learning curve; none: no curve."
    )
    learning_synthetic_ratios: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        (0.0, 1.0), description="Synthetic images for each real one, in the learning curve."
    )
    kid_subsets: Count = 50
    neighbors: Count = Field(
        5, description="k of the nearest-neighbor manifolds (precision, recall, density, coverage)."
    )
    bootstrap: Resamples = Field(500, description="Resamples of subjects behind each interval.")
    extractors: tuple[ExtractorSettings, ...] = Field((), description="Further feature spaces, from files.")


class EvaluateMRToCTSettings(FrozenSettings):
    """Pseudo-CT against CT."""

    dialect: Literal["synthrad2023", "synthrad2025-metrics", "synthrad2025-container"] = "synthrad2025-container"
    mask_dilation_px: Annotated[int, Field(ge=0)] = Field(
        10, description="In-plane dilation of the body outline that the masked metrics use, in pixels."
    )
    stopping_power: tuple[tuple[float, float], ...] | None = Field(
        None,
        description="Pairs of HU and relative stopping power for water-equivalent path lengths; none: ICRU 44 tissues.",
    )
    label_names: dict[int, Annotated[str, Field(min_length=1, max_length=80)]] = Field(
        {}, description="Names of the structures in a segmenter's label maps, by label; others are called by number."
    )
    wepl_directions: Count = Field(18, description="Beam directions over half a turn of the water-equivalent paths.")
    bootstrap: Resamples = 500

    @field_validator("stopping_power")
    @classmethod
    def _ascending(cls, points: tuple[tuple[float, float], ...] | None) -> tuple[tuple[float, float], ...] | None:
        rising = points is None or (
            len(points) >= 2
            and all(low[0] < high[0] for low, high in pairwise(points))
            and all(math.isfinite(hu) and 0 <= rsp < math.inf for hu, rsp in points)
        )
        if not rising:
            raise ValueError("two or more pairs of HU, strictly ascending, and a relative stopping power of 0 or more")
        return points


class EvaluateSettings(FrozenSettings):
    """Both evaluations."""

    lesions: EvaluateLesionsSettings = EvaluateLesionsSettings()
    mr_to_ct: EvaluateMRToCTSettings = EvaluateMRToCTSettings()


class ExportSettings(FrozenSettings):
    """The augmented dataset."""

    format: Literal["image_folder", "medmnist_npz", "dicom_sc"] = Field(
        "image_folder", description="How the images are written: a folder of PNG, one MedMNIST archive, or DICOM."
    )
    release_override: str | None = Field(
        None,
        min_length=10,
        max_length=200,
        description="Reason for exporting a cohort that the release gate blocks; printed on the data card.",
    )


class ShareSettings(FrozenSettings):
    """A trained model to give away."""

    format: Literal["bundle", "torch_export", "onnx"] = Field(
        "bundle", description="What runs without scanloom: a MONAI Bundle, a torch.export program, or ONNX."
    )
    license: str = Field(
        "not stated",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,:/()+-]{0,79}$",
        description="License of the weights, e.g. CC-BY-NC-4.0; printed on the model card.",
    )


class ReportSettings(FrozenSettings):
    """The HTML report."""

    title: str = Field("scanloom report", max_length=120)
    images_per_class: Count = 8
    slices_per_case: Count = 3
    cases: Count = Field(
        3, description="Pseudo-CT cases shown, spread from the lowest error to the highest; 1 shows the median."
    )
    viewer_megabytes: Annotated[int, Field(ge=0)] = Field(
        30, description="Room for the voxels of the slice viewers in the page; 0 leaves them out."
    )


class RunSettings(FrozenSettings):
    """A whole run: ingest, prepare, train, generate, evaluate, export, report."""

    name: str = Field("run", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$", description="Names the run; no patient data here.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: DeviceChoice = "auto"
    tracks: tuple[Track, ...] = Field(("lesions", "mr_to_ct"), min_length=1, description="What the run makes.")
    ingest: IngestSettings = IngestSettings()
    prepare: PrepareSettings = PrepareSettings()
    train: TrainSettings = TrainSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    share: ShareSettings = ShareSettings()
    report: ReportSettings = ReportSettings()
