"""Settings of prepare: splits, lesion crops, MR and CT volumes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.frozen_settings import CLASS_NAME, Count, Fraction, FrozenSettings, Positive


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
    sequences: tuple[Annotated[str, Field(pattern=CLASS_NAME)], ...] = Field(
        (),
        max_length=4,
        description="Channels of an image: registered scans of the subject by sequence, e.g. [T1, T2]; none: the scan "
        "that the lesion was drawn on, alone.",
    )
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


class RegistrationLimits(FrozenSettings):
    """What a registration must reach; a pair that fails is refused, a bend that fails is dropped, with its numbers."""

    min_overlap: Fraction = Field(0.5, description="Least share of the MR's body inside the CT's field of view.")
    min_body_dice: Fraction = Field(0.85, description="Least Dice of both body outlines where both fields of view are.")
    max_rotation_degrees: Positive = Field(30.0, description="Largest turn of the CT.")
    max_disagreement_mm: Positive = Field(
        5.0, description="Largest mean distance between the result and one from a start 10 mm and 6 degrees beside it."
    )
    min_information_gain: Positive = Field(
        0.02, description="Least gain of mutual information by a bend, as a share; less leaves the pair rigid."
    )
    max_bend_mm: Positive = Field(15.0, description="Farthest that a bend may move anything in the body.")
    max_local_change: float = Field(
        2.0, gt=1.0, description="A bend may give a voxel this many times its volume, or leave it one part of so many."
    )
    max_bend_disagreement_mm: Positive = Field(
        2.0, description="Largest mean distance between a bend and one whose search began 3 mm beside it."
    )


class PrepareMRToCTSettings(FrozenSettings):
    """MR and CT volumes on a common spacing."""

    spacing_mm: tuple[Positive, Positive, Positive] = Field(
        (1.0, 1.0, 3.0), description="Voxel size (R, A, S) that MR and CT are resampled to, in mm."
    )
    sequences: tuple[Annotated[str, Field(pattern=CLASS_NAME)], ...] = Field(
        (),
        max_length=4,
        description="MR sequences that are one input together, in this order, e.g. [T1, T2]: registered scans of a "
        "subject by sequence, on the grid of the first; none: every MR is an input of its own.",
    )
    n4: N4Settings = N4Settings()
    mr_normalization: Literal["percentiles", "z_score", "landmarks"] = Field(
        "percentiles",
        description="How MR intensities become units: two percentiles of the body, mean and deviation in the body, or "
        "the body's deciles moved to those of the training subjects of the same MR sequence (Nyúl 2000).",
    )
    mr_percentiles: tuple[float, float] = Field(
        (1.0, 99.0), description="Percentiles of the MR inside the body that span the unit range."
    )
    ct_outside_body: Literal["air", "keep"] = Field(
        "air", description="Couch, head holder and clothes on CT: replaced by air (-1000 HU), or kept."
    )
    body_parts: tuple[str, ...] | None = Field(
        None, description="DICOM body parts to keep, e.g. [HEAD]; null keeps all."
    )
    pair_by: Literal["frame_of_reference", "subject"] = Field(
        "frame_of_reference",
        description="Which CT counts as registered to an MR: one in the same DICOM frame of reference, or any of the "
        "same subject (only where you know that they are registered, e.g. NIfTI resampled to each other).",
    )
    registration: Literal["none", "rigid", "deformable"] = Field(
        "none",
        description="Move and turn a CT of the same subject onto each MR by mutual information, whatever their frames "
        "of reference; deformable also bends it. Results are checked: a rigid one that fails leaves the MR unpaired, "
        "a bend that fails leaves the pair rigid.",
    )
    registration_limits: RegistrationLimits = RegistrationLimits()

    @model_validator(mode="after")
    def _several_sequences(self) -> Self:
        if len(self.sequences) == 1 or len({name.casefold() for name in self.sequences}) < len(self.sequences):
            raise ValueError(f"sequences must be none, or two to four different ones, found {list(self.sequences)}")
        return self


class PrepareSettings(FrozenSettings):
    """From catalog to arrays."""

    split: SplitSettings = SplitSettings()
    lesions: PrepareLesionsSettings = PrepareLesionsSettings()
    mr_to_ct: PrepareMRToCTSettings = PrepareMRToCTSettings()
