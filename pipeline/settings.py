"""Settings of a run: frozen sections with defaults, limits and a description of every key that needs one.

`pipeline.settings_loading` reads them from YAML, environment and command line.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.evaluate_settings import EvaluateLesionsSettings as EvaluateLesionsSettings
from pipeline.evaluate_settings import EvaluateMRToCTSettings as EvaluateMRToCTSettings
from pipeline.evaluate_settings import EvaluateSettings as EvaluateSettings
from pipeline.evaluate_settings import ExtractorSettings as ExtractorSettings
from pipeline.frozen_settings import CLASS_NAME as CLASS_NAME
from pipeline.frozen_settings import ClassName, Count, Fraction, Positive
from pipeline.frozen_settings import FrozenSettings as FrozenSettings
from pipeline.generate_settings import GenerateLesionsSettings as GenerateLesionsSettings
from pipeline.generate_settings import GenerateMRToCTSettings as GenerateMRToCTSettings
from pipeline.generate_settings import GenerateSettings
from pipeline.generate_settings import PlacementSettings as PlacementSettings
from pipeline.prepare_settings import N4Settings as N4Settings
from pipeline.prepare_settings import PrepareLesionsSettings as PrepareLesionsSettings
from pipeline.prepare_settings import PrepareMRToCTSettings as PrepareMRToCTSettings
from pipeline.prepare_settings import PrepareSettings as PrepareSettings
from pipeline.prepare_settings import RegistrationLimits as RegistrationLimits
from pipeline.prepare_settings import SplitSettings as SplitSettings
from pipeline.train_settings import AlarmSettings as AlarmSettings
from pipeline.train_settings import LoopSettings as LoopSettings
from pipeline.train_settings import TrainLesionsSettings as TrainLesionsSettings
from pipeline.train_settings import TrainMRToCTSettings as TrainMRToCTSettings
from pipeline.train_settings import TrainSettings as TrainSettings

Track = Literal["lesions", "mr_to_ct"]
DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]


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
    quality_pages: Annotated[int, Field(ge=0)] = Field(
        50, description="Pseudo-CT whose checks are shown on a page each, gravest first."
    )
    viewer_megabytes: Annotated[int, Field(ge=0)] = Field(
        30, description="Room for the voxels of the slice viewers in the page; 0 leaves them out."
    )


class RunSettings(FrozenSettings):
    """A whole run: ingest, prepare, train, generate, evaluate, export, report."""

    name: str = Field("run", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$", description="Names the run; no patient data here.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: DeviceChoice = "auto"
    device_turns: str = Field(
        "auto",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$",
        description="Who waits for whom. `auto`: one stage at a time on each GPU, none waits on the CPU; `off`: nobody "
        "waits; any other word: runs that say the same word take turns, whatever the device.",
    )
    promotion: Literal["auto", "always", "no_worse"] = Field(
        "auto",
        description="When a newly trained model takes the place of the last one. `no_worse`: only where it is no worse "
        "on the validation split; `always`: every time; `auto`: `no_worse` in flows of a site, `always` in commands.",
    )
    tracks: tuple[Track, ...] = Field(("lesions", "mr_to_ct"), min_length=1, description="What the run makes.")
    ingest: IngestSettings = IngestSettings()
    prepare: PrepareSettings = PrepareSettings()
    train: TrainSettings = TrainSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    share: ShareSettings = ShareSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _format_holds_the_images(self) -> Self:
        if len(self.prepare.lesions.sequences) > 1 and self.export.format != "medmnist_npz":
            raise ValueError("several prepare.lesions.sequences are exported by export.format medmnist_npz alone")
        return self

    @model_validator(mode="after")
    def _three_dimensions_of_one_sequence(self) -> Self:
        if self.prepare.mr_to_ct.sequences and self.train.mr_to_ct.dimensions == 3:
            raise ValueError("train.mr_to_ct.dimensions: 3 takes one MR, and prepare.mr_to_ct.sequences names several")
        return self
