"""Settings: one YAML file is one reproducible run, validated whole before any data is read.

Precedence, low to high: defaults below, the YAML file, environment variables ``SCANLOOM_A__B``, ``--set a.b=c``.
Unknown keys are refused with the nearest known name. Settings are frozen.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from pipeline.errors import SettingsError

Track = Literal["lesions", "mr_to_ct"]
DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

ENVIRONMENT_PREFIX = "SCANLOOM_"


class FrozenSettings(BaseModel):
    """Base of every settings section: frozen, unknown keys forbidden, defaults checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class IngestSettings(FrozenSettings):
    """How scans are read."""

    layout: Literal["auto", "scans", "class_folders", "medmnist_npz", "slice_pairs"] = Field(
        "auto", description="How the input folder is organized; `auto` looks and says what it found and why."
    )
    timeout_s: Positive = Field(60, description="Wall-clock limit for parsing one series, in seconds.")
    memory_limit_mb: Count = Field(3000, description="Memory limit of the parsing child process, in MiB.")
    min_slices: Count = Field(3, description="Volumes with fewer slices are quarantined.")


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


class LoopSettings(FrozenSettings):
    """What both trainings share; every length is counted in training images."""

    images: Count = Field(200_000, description="Training images shown to the networks.")
    batch_size: Count = 32
    log_every_images: Count = 512
    checkpoint_every_images: Count = 8192
    grid_every_images: Count = 16384


class TrainLesionsSettings(LoopSettings):
    """Conditional DCGAN (Radford 2016; projection discriminator, Miyato 2018; DiffAugment, Zhao 2020)."""

    family: Literal["dcgan"] = "dcgan"
    objective: Literal["non_saturating", "hinge", "least_squares", "minimax"] = "non_saturating"
    width: Count = Field(32, description="Channels of the widest resolution; doubles as resolution halves.")
    latent_size: Count = 64
    learning_rate_generator: Positive = 1e-3
    learning_rate_discriminator: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.0, 0.99)
    ema_decay: Fraction = Field(0.998, description="Decay of the generator's moving average, per step.")
    diff_augment: tuple[Literal["brightness", "contrast", "translation", "cutout"], ...] = ("translation",)
    r1_gamma: Annotated[float, Field(ge=0)] = Field(0.0, description="Weight of the R1 penalty; 0 is off.")
    mirror: bool = Field(False, description="Show left-right mirrored crops too; keep off where side matters.")


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


class GenerateLesionsSettings(FrozenSettings):
    """Recipe of a synthetic cohort."""

    per_class: Count | dict[str, Annotated[int, Field(ge=0)]] = Field(
        200, description="Images for each class, or a mapping from class to number."
    )
    truncation: Annotated[float, Field(gt=0, le=2)] = Field(
        1.0, description="Scale of the latent; below 1 is safer, less varied."
    )


class GenerateMRToCTSettings(FrozenSettings):
    """Pseudo-CT by overlapping windows."""

    splits: tuple[Literal["train", "validation", "test"], ...] = Field(
        ("test",), description="Subjects of these splits are translated."
    )
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    dicom: bool = Field(True, description="Write a DICOM CT series beside the NIfTI where the MR has geometry.")


class GenerateSettings(FrozenSettings):
    """What is generated."""

    lesions: GenerateLesionsSettings = GenerateLesionsSettings()
    mr_to_ct: GenerateMRToCTSettings = GenerateMRToCTSettings()


class EvaluateLesionsSettings(FrozenSettings):
    """Fidelity, diversity, memorization and use of a synthetic cohort."""

    classifier_steps: Count = Field(300, description="Optimizer steps of every classifier, the same in each arm.")
    seeds: Annotated[int, Field(ge=2)] = Field(3, description="Classifiers trained for each arm.")
    kid_subsets: Count = 50
    neighbors: Count = Field(
        5, description="k of the nearest-neighbor manifolds (precision, recall, density, coverage)."
    )
    bootstrap: Count = Field(500, description="Resamples of subjects behind each interval.")


class EvaluateMRToCTSettings(FrozenSettings):
    """Pseudo-CT against CT."""

    dialect: Literal["synthrad2023", "synthrad2025-metrics", "synthrad2025-container"] = "synthrad2025-container"
    mask_dilation_px: Annotated[int, Field(ge=0)] = Field(
        10, description="In-plane dilation of the body outline that the masked metrics use, in pixels."
    )
    bootstrap: Count = 500


class EvaluateSettings(FrozenSettings):
    """Both evaluations."""

    lesions: EvaluateLesionsSettings = EvaluateLesionsSettings()
    mr_to_ct: EvaluateMRToCTSettings = EvaluateMRToCTSettings()


class ReportSettings(FrozenSettings):
    """The HTML report."""

    title: str = Field("scanloom report", max_length=120)
    images_per_class: Count = 8
    slices_per_case: Count = 3


class RunSettings(FrozenSettings):
    """A whole run: ingest, prepare, train, generate, evaluate, report."""

    name: str = Field("run", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$", description="Names the run; no patient data here.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: DeviceChoice = "auto"
    tracks: tuple[Track, ...] = Field(("lesions", "mr_to_ct"), min_length=1, description="What the run makes.")
    ingest: IngestSettings = IngestSettings()
    prepare: PrepareSettings = PrepareSettings()
    train: TrainSettings = TrainSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()


class _Environment(BaseSettings):
    """Reads ``SCANLOOM_SECTION__KEY`` variables with pydantic-settings; only names of `RunSettings` are looked at."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="ignore")
    name: str | None = None
    seed: int | None = None
    device: str | None = None
    tracks: list[str] | None = None
    ingest: dict[str, Any] | None = None
    prepare: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    generate: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None
    report: dict[str, Any] | None = None


def load(path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> RunSettings:
    """Read and validate a run's settings.

    Args:
        path: YAML file; None takes every default.
        overrides: ``a.b=c`` strings, the value parsed as YAML.
        environment: variables to use instead of the process environment.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, a value is not allowed.
    """
    values = {} if path is None else _read_yaml(path)
    values = _merge(values, _from_environment(os.environ if environment is None else environment))
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return validate(values, source=str(path.name) if path else "defaults")


def validate(values: Mapping[str, Any], source: str) -> RunSettings:
    """Validate a mapping into `RunSettings`; ``source`` names where it came from in errors."""
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from None


def json_schema() -> dict[str, Any]:
    """JSON schema of a run's settings, for editors."""
    return RunSettings.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def to_yaml(settings: RunSettings) -> str:
    """The resolved settings as YAML, every default written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """Names of the presets that ship with scanloom."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def find_preset(name_or_path: str) -> Path:
    """A settings file by path, or a shipped preset by name.

    Raises:
        SettingsError: neither exists.
    """
    path = Path(name_or_path)
    preset = _preset_folder() / f"{name_or_path}.yaml"
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    if path.name == name_or_path and preset.is_file():
        return preset
    raise SettingsError(
        "The settings must be a YAML file or the name of a preset.",
        found=name_or_path,
        allowed=f"a path ending in .yaml, or one of: {', '.join(preset_names())}",
        change=_did_you_mean(name_or_path, preset_names()) or "Check the path.",
    )


def _preset_folder() -> Path:
    return Path(__file__).resolve().parent.parent / "configs"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            "The settings file must be readable YAML.",
            found=" ".join(str(error).split()),
            allowed="a UTF-8 YAML mapping",
            change=f"Correct {path}.",
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(
            "The settings file must hold a mapping.",
            found=type(values).__name__,
            allowed="keys and values",
            change=f"Correct {path}.",
        )
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(_Environment)
    source.env_vars = {key.lower(): value for key, value in environment.items()}
    found = {key: value for key, value in source().items() if value is not None}
    return {key: _parse_scalars(value) for key, value in found.items()}


def _parse_scalars(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _parse_scalars(item) for key, item in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def _parse_override(override: str) -> dict[str, Any]:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise SettingsError(
            "An override must be written key=value.",
            found=override,
            allowed="a.b=c, e.g. train.lesions.images=20000",
            change="Put a key, an equals sign and a value after --set.",
        )
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    for key in reversed(keys):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _explain(error: ValidationError, source: str) -> SettingsError:
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "(top level)"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        hint = _did_you_mean(str(first["loc"][-1]), known)
        return SettingsError(
            f"Unknown setting in {source}{more}.",
            found=where,
            allowed=", ".join(known),
            change=hint or "Remove the key or correct its name.",
        )
    return SettingsError(
        f"A setting in {source} has a value that is not allowed{more}.",
        found=f"{where} = {first['input']!r}",
        allowed=first["msg"],
        change=f"Correct {where}.",
    )


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: Any = RunSettings
    for part in location:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean `{near[0]}`?" if near else ""
