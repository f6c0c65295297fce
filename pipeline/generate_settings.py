"""Settings of what is generated: the recipe of a synthetic cohort, and pseudo-CT."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.frozen_settings import ClassName, Count, FrozenSettings

EXACT_OVERLAP = 0.375
"""Least share of a window of pseudo-CT that neighbors share in a plan that is not called a faster one."""

Truncation = Annotated[float, Field(gt=0, le=2)]
AttributeValue = str | float | tuple[float, float]
"""A level or a named range, a number, or the ends of a range that is drawn from evenly."""


class CohortLine(FrozenSettings):
    """One line of a recipe."""

    lesion_class: ClassName
    count: Count = Field(description="Images.")
    attributes: dict[str, AttributeValue] = Field(
        {}, description="Attribute → level, number or [low, high]; attributes that are not named are left open."
    )
    truncation: Truncation | None = Field(None, description="Of this line; null takes that of the recipe.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, value in self.attributes.items():
            ends = value if isinstance(value, tuple) else (value, value)
            numbers = [end for end in ends if isinstance(end, float)]
            if not all(map(math.isfinite, numbers)) or numbers != sorted(numbers):
                raise ValueError(f"{name}: a range is [low, high] of finite numbers, low not above high")
        return self


class CohortFilterSettings(FrozenSettings):
    """Which images of a cohort are rejected and made anew; limits are calibrated on real validation images."""

    manifold: bool = Field(
        False, description="Reject images that lie farther from the training images of their class than real ones do."
    )
    manifold_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="Share of real validation images that `manifold` would reject."
    )
    memorized: bool = Field(False, description="Reject images that copy a training image.")
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        4, description="Images made for each one wanted, at the most, before the recipe is given up."
    )

    @property
    def active(self) -> bool:
        """Whether any image can be rejected."""
        return self.manifold or self.memorized


class GenerateLesionsSettings(FrozenSettings):
    """Recipe of a synthetic cohort."""

    per_class: Count | dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        200, description="Images for each class, or a mapping from class to number; null where there are lines."
    )
    lines: tuple[CohortLine, ...] = Field((), description="The recipe line by line, in place of per_class.")
    truncation: Truncation = Field(1.0, description="Scale of the latent; below 1 is safer, less varied.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="Of the images; null takes that of the run. Another one makes other images, without training."
    )
    ensemble: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (), description="Seeds of further trainings, whose generators take turns with the run's own."
    )
    filter: CohortFilterSettings = CohortFilterSettings()

    @model_validator(mode="before")
    @classmethod
    def _lines_need_no_classes(cls, values: Any) -> Any:
        """Lines alone set ``per_class`` to null, so that what is stored says which of the two holds."""
        if isinstance(values, dict) and values.get("lines") and "per_class" not in values:
            return {**values, "per_class": None}
        return values

    @model_validator(mode="after")
    def _one_recipe(self) -> Self:
        if (self.per_class is None) != bool(self.lines):
            raise ValueError("either per_class or lines: set the other one to null or []")
        return self


class GenerateMRToCTSettings(FrozenSettings):
    """Pseudo-CT by overlapping windows; how often it is asked for decides what its uncertainty is made of."""

    splits: tuple[Literal["train", "validation", "test"], ...] = Field(
        ("test",), description="Subjects of these splits are translated."
    )
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(
        EXACT_OVERLAP,
        description=f"Share of a window that neighbors share at least; less than {EXACT_OVERLAP} is a faster path.",
    )
    blending: Literal["gaussian", "cosine"] = Field("gaussian", description="Weight of a window's pixels.")
    windows: Literal["overlapping", "whole_slice"] = Field(
        "overlapping", description="whole_slice: one window over the whole body, a faster path."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is a faster path.")
    fast_limit_hu: Annotated[float, Field(gt=0)] = Field(
        1.0, description="A faster path is taken where it changes the mean absolute error by this much at the most."
    )
    planes: tuple[Literal["axial", "coronal", "sagittal"], ...] = Field(
        ("axial",), min_length=1, description="Planes in which the volume is cut and translated; the mean is taken."
    )
    mirrored: bool = Field(True, description="Translate the mirror image too, and take the mean.")
    ensemble: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (), description="Seeds of further trainings, whose networks translate too; the mean is taken."
    )
    cycle_residual: bool = Field(
        True, description="Translate the pseudo-CT back and map how far that is from the MR, where the model can."
    )
    accept_risk: Annotated[str, Field(min_length=8, max_length=200, pattern=r"^[^\\\x00-\x1f\x7f]*$")] | None = Field(
        None, description="Why MR outside the model's scope are translated all the same; stamped on what comes of them."
    )
    dicom: bool = Field(True, description="Write a DICOM CT series beside the NIfTI where the MR has geometry.")

    @field_validator("planes", "ensemble", "splits")
    @classmethod
    def _no_doubles(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("each may be named once")
        return values


class PlacementSettings(FrozenSettings):
    """Synthetic lesions set into healthy scans."""

    per_host: Annotated[int, Field(ge=1, le=255)] = Field(1, description="Lesions set into each host.")
    blending: Literal["poisson", "feathered"] = Field(
        "poisson", description="Keep the gradients of the lesion (Perez 2003), or mix it in with a soft rim."
    )
    margin_mm: Annotated[float, Field(ge=0)] = Field(
        3.0, description="What is written stays this far from the edge of the body, or of the mask that is given."
    )
    rim_mm: Annotated[float, Field(ge=0)] = Field(
        3.0, description="Width of the rim around a lesion over which it is blended; one pixel at least."
    )
    labels: tuple[Count, ...] = Field((), description="Labels of the mask given that may be used; none: all above 0.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="null takes that of the run.")


class GenerateSettings(FrozenSettings):
    """What is generated."""

    lesions: GenerateLesionsSettings = GenerateLesionsSettings()
    placement: PlacementSettings = PlacementSettings()
    mr_to_ct: GenerateMRToCTSettings = GenerateMRToCTSettings()
