"""What the reader keeps of one DICOM file: plain values, so that it crosses processes and can be stored.

Named tuples, for an archive has a hundred thousand of them.
"""

from typing import Literal, NamedTuple

from pipeline.errors import QuarantineError
from pipeline.scan_io.scan import ScanFacts

Kind = Literal["image", "segmentation", "structure_set", "other"]
Vector = tuple[float, float, float]


class PixelFormat(NamedTuple):
    """How pixels are stored (PS3.3 C.7.6.3).

    Attributes:
        rows, columns: size of a frame; of the whole sheet for a mosaic.
        bits_allocated, bits_stored, high_bit: of one sample.
        signed: whether PixelRepresentation is 1.
        inverted: whether PhotometricInterpretation is MONOCHROME1.
        padding: smallest and largest stored value that is padding (C.7.5.1.1.2), or None.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool = False
    padding: tuple[int, int] | None = None


class FrameHeader(NamedTuple):
    """One 2-D image with its place: the whole of a classic file, a frame of an enhanced one, a tile of a mosaic.

    Attributes:
        frame: number of the frame in its file, from 0.
        tile: number of the tile in the sheet, row by row from 0; −1 where the frame is no sheet.
        position: center of the first pixel, LPS+ mm.
        orientation: cosines of growing column, then of growing row index, LPS+.
        pixel_spacing: mm between rows, then between columns.
        slope, intercept: of the linear Modality LUT, or None.
        lookup: whether the Modality LUT is a table.
        image_type: ImageType from its third value on, which tells e.g. magnitude from phase.
        part: M, P, R or I where a vendor's element tells the part of a complex image, else empty.
        echo_number, echo_time_ms, b_value: MR contrast; b in s/mm².
        time_index: TemporalPositionIdentifier or -Index.
        stack: StackID of an enhanced file, else empty.
        acquisition_number, instance_number, acquisition_time: order of making.
    """

    frame: int
    tile: int
    position: Vector
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing: tuple[float, float]
    slope: float | None = None
    intercept: float | None = None
    lookup: bool = False
    image_type: tuple[str, ...] = ()
    part: str = ""
    echo_number: int | None = None
    echo_time_ms: float | None = None
    b_value: float | None = None
    time_index: int | None = None
    stack: str = ""
    acquisition_number: int | None = None
    instance_number: int | None = None
    acquisition_time: str | None = None


class DicomHeader(NamedTuple):
    """One file.

    Attributes:
        kind: what the file holds; only an image has frames.
        modality: Modality as a term of at most 16 characters, or empty.
        sop_class_uid, sop_instance_uid, transfer_syntax_uid: of the file.
        size: bytes of the file.
        facts: what the patient, study and series modules say.
        pixels: how pixels are stored; None for no image.
        pixel_offset, pixel_length: where native little-endian pixel data lies in the file, else None.
        tiles_across: tiles in a row of a mosaic, 1 for no mosaic.
        slice_distance_mm: SpacingBetweenSlices, else SliceThickness; used for single slices alone.
        gantry_tilt_degrees: GantryDetectorTilt of a CT.
        derived: computed from other images (PS3.3 C.7.6.1.1.2), more than lossy compression makes it.
        lossy: stored with loss.
        refusal: reason, what was found, advice, where the file is left out.
        damaged: whether the refusal means that an image of the series is lost.
        frames: images with their places; empty where the file is left out, kept where it is damaged.
    """

    kind: Kind
    modality: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int
    facts: ScanFacts
    pixels: PixelFormat | None = None
    pixel_offset: int | None = None
    pixel_length: int | None = None
    tiles_across: int = 1
    slice_distance_mm: float | None = None
    gantry_tilt_degrees: float | None = None
    derived: bool = False
    lossy: bool = False
    refusal: tuple[str, str, str] | None = None
    damaged: bool = False
    frames: tuple[FrameHeader, ...] = ()

    @property
    def error(self) -> QuarantineError | None:
        """The refusal as an error."""
        return None if self.refusal is None else QuarantineError(*self.refusal)
