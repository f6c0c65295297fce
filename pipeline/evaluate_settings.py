"""Settings of both evaluations."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.frozen_settings import Count, FrozenSettings, Positive

Resamples = Annotated[int, Field(ge=100)]

FEWEST_ARM_RESAMPLES = 2000
"""Behind the figures of a classifier, whatever ``bootstrap`` says: a bootstrap p-value is 2 / (resamples + 1) at least,
and with 200 of them no difference could stay below 0.05 after a correction over six arms."""


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

    @property
    def arm_resamples(self) -> int:
        """Resamples behind the figures of classifiers."""
        return max(self.bootstrap, FEWEST_ARM_RESAMPLES)


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
