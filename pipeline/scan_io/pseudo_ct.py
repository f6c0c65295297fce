"""Write a pseudo-CT as a DICOM CT series that says what it is: derived, synthetic, from which MR, by which algorithm.

CT Image Storage (PS3.3 A.3) with ImageType DERIVED, Synthetic Data (0008,001C) YES, the source images (C.7.6.1.1.4),
the derivation (C.7.6.1.1.3), the contributing equipment (C.12.1.1.5) and the algorithm (table 10-19). It shares the
study and the frame of reference of the MR, so that both overlay without registration. Made from a de-identified MR it
says how that was done (C.7.1.1, C.7.6.1.1.8; codes of PS3.16 CID 7050).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.errors import InputError
from pipeline.files import atomic_folder
from pipeline.geometry import Geometry, is_oblique, to_dicom_axial
from pipeline.scan_io.deidentified import Deidentification, add_deidentification, code
from pipeline.scan_io.dicom_write import (
    Acquisition,
    SeriesIdentity,
    series_header,
    uid_from,
    write_slices,
)
from pipeline.scan_io.scan import MR_IMAGE_STORAGE
from pipeline.scan_io.series_check import check_written_series

NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE"

_LONG_STRING = 64
"""Most characters of a DICOM LO value (PS3.5 6.2)."""


@dataclass(frozen=True)
class SourceSeries:
    """The MR series that a pseudo-CT is made from, with identifiers as they stand in the workspace (pseudonyms).

    The pseudo-CT joins its study, so what it says about patient and study has to equal what the MR says.
    ``deidentification`` tells how the MR was de-identified; None claims nothing. ``same_grid`` tells whether the
    pseudo-CT's slices are those of the MR; False where they were cut anew (Spatial Locations Preserved, C.7.6.1.1.4).
    """

    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    sop_instance_uids: Sequence[str]
    patient_position: str
    patient_name: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    body_part: str = ""
    sop_class_uid: str = MR_IMAGE_STORAGE
    deidentification: Deidentification | None = None
    same_grid: bool = True


@dataclass(frozen=True)
class Algorithm:
    """What made the pseudo-CT.

    Args:
        name: at most 64 characters.
        version: at most 64 characters, e.g. the software version and the hash of the weights.
        description: one or two sentences on method and training data, without patient data.
        kvp: tube voltage of the CTs it was trained on, if known: HU depend on it.
        caution: two or three words for the series description where this image is to be doubted.
    """

    name: str
    version: str
    description: str
    kvp: float | None = None
    caution: str = ""


def description_of(algorithm: Algorithm) -> str:
    """Series description: what it is, with the caution where there is one."""
    words = f"{algorithm.caution}, " if algorithm.caution else ""
    return f"Pseudo-CT from MR, {words}{NOT_FOR_CLINICAL_USE}"


def write_pseudo_ct_series(
    folder: Path,
    pseudo_ct_hu: NDArray[Any],
    geometry: Geometry,
    source: SourceSeries,
    algorithm: Algorithm,
    *,
    series_uid: str = "",
    series_number: int = 1001,
) -> list[Path]:
    """Write a pseudo-CT as a CT series; ``folder`` appears whole or not at all, and replaces an older one.

    The files are read back and compared with what was meant before the folder gets its name.

    Args:
        folder: the series' own folder.
        pseudo_ct_hu: (i, j, k) HU; rounded and clipped to [−1024, 3071].
        geometry: its grid, along the patient axes in any of the 48 orientations; written as axial slices, voxels
            unchanged.
        source: the MR series.
        algorithm: what made it.
        series_uid: UID of the new series; made from the source, the algorithm and its version when empty.
        series_number: number of the new series.

    Returns:
        The paths, in the order of InstanceNumber.

    Raises:
        InputError: if the grid is oblique, or a text is too long for its attribute.
        WorkspaceError: if the files read back otherwise; nothing is kept.
    """
    if is_oblique(geometry.affine):
        raise InputError(
            "A pseudo-CT series must have axial slices: planning systems refuse oblique ones",
            found=f"voxel axes {geometry.direction.round(4).tolist()} (columns, RAS+)",
            allowed="voxel axes along the patient axes",
            change="resample to pipeline.geometry.axial_geometry_for(geometry) first",
        )
    _check_lengths(algorithm)
    voxels, affine, _ = to_dicom_axial(pseudo_ct_hu, geometry.affine)
    uid = series_uid or uid_from("pseudo-CT", source.series_uid, algorithm.name, algorithm.version)
    header = series_header("CT", _identity(source, uid, series_number), _acquisition(source, algorithm))
    _add_derivation(header, source, algorithm)
    if source.deidentification is not None:
        add_deidentification(header, source.deidentification)
    with atomic_folder(folder) as temporary:
        names = [path.name for path in write_slices(temporary, header, voxels, affine)]
        check_written_series(temporary, voxels, affine)
    return [folder / name for name in names]


def _check_lengths(algorithm: Algorithm) -> None:
    for text, limit in (
        (algorithm.name, _LONG_STRING),
        (algorithm.version, _LONG_STRING),
        (algorithm.description, 900),
    ):
        if len(text) > limit or "\\" in text:
            raise InputError(
                "A text of the algorithm does not fit its DICOM attribute",
                found=f"{len(text)} characters: {text[:80]!r}",
                allowed=f"at most {limit} characters, no backslash",
                change="shorten it",
            )


def _identity(source: SourceSeries, series_uid: str, series_number: int) -> SeriesIdentity:
    return SeriesIdentity(
        patient_id=source.patient_id,
        patient_name=source.patient_name,
        patient_sex=source.patient_sex,
        patient_age=source.patient_age,
        patient_position=source.patient_position,
        study_uid=source.study_uid,
        study_id=source.study_id,
        study_date=source.study_date,
        study_time=source.study_time,
        series_uid=series_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        series_number=series_number,
    )


def _acquisition(source: SourceSeries, algorithm: Algorithm) -> Acquisition:
    return Acquisition(
        series_description=description_of(algorithm),
        body_part=source.body_part,
        manufacturer="scanloom",
        model_name=algorithm.name,
        image_type=("DERIVED", "SECONDARY", "AXIAL"),
        kvp=algorithm.kvp,
    )


def _add_derivation(header: Dataset, source: SourceSeries, algorithm: Algorithm) -> None:
    header.SyntheticData = "YES"
    header.SoftwareVersions = algorithm.version
    header.ImageComments = f"Synthetic image for research, {NOT_FOR_CLINICAL_USE}"
    description = algorithm.description.rstrip(".")
    cut = "" if source.same_grid else " Cut anew into axial slices."
    header.DerivationDescription = f"Pseudo-CT computed from MR: {description}.{cut} {NOT_FOR_CLINICAL_USE}."
    # The standard has no code for this derivation (CID 7203 is extensible), hence a private coding scheme.
    header.DerivationCodeSequence = [code("PSEUDO-CT", "99SCANLOOM", "Pseudo-CT synthesis from MR")]
    header.SourceImageSequence = [_source_image(source, uid) for uid in source.sop_instance_uids]
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    equipment.Manufacturer = "scanloom"
    equipment.ManufacturerModelName = algorithm.name
    equipment.SoftwareVersions = algorithm.version
    equipment.ContributionDescription = "Pseudo-CT synthesis from MR"
    header.ContributingEquipmentSequence = [equipment]
    identification = Dataset()
    identification.AlgorithmFamilyCodeSequence = [code("123110", "DCM", "Artificial Intelligence")]
    identification.AlgorithmName = algorithm.name
    identification.AlgorithmVersion = algorithm.version
    header.DerivationAlgorithmSequence = [identification]


def _source_image(source: SourceSeries, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    item.SpatialLocationsPreserved = "YES" if source.same_grid else "NO"
    item.PurposeOfReferenceCodeSequence = [code("121322", "DCM", "Source image for image processing operation")]
    return item
