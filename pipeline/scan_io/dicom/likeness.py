"""Headers of one series: what its files share is understood once.

Most of a classic series' header is the same, byte for byte, in each of its files. A header that was read is kept under
those bytes; a file that shares them differs in its place and numbers only.
"""

from collections import OrderedDict

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.header import DicomHeader
from pipeline.scan_io.dicom.open_file import OpenedFile
from pipeline.scan_io.dicom.plain_keys import TAGS
from pipeline.scan_io.dicom.plain_layouts import Raw

OWN = (
    "SOPInstanceUID",
    "ContentTime",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "TriggerTime",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "SliceLocation",
)
"""What differs among the files of a series; of these `KnownHeaders.like` reads what a classic header holds."""

_MOSAIC_TEXTS = {0x00290010 | block << 8 for block in range(0x10, 0x100)}
_OWN_TAGS = frozenset({*(TAGS[keyword] for keyword in OWN), *_MOSAIC_TEXTS})
_KEPT = 64
_FARTHEST_MM = 1e6

Likeness = tuple[str, tuple[tuple[int, Raw], ...]]


def likeness(opened: OpenedFile) -> Likeness | None:
    """What a file shares with others of its series; None where its pixels do not lie in it as they are."""
    if opened.plain is None or opened.pixel_offset is None:
        return None
    shared = tuple([item for item in opened.plain.items() if item[0] not in _OWN_TAGS])
    return opened.transfer_syntax_uid, shared


class KnownHeaders:
    """Headers by what they share, the latest ones."""

    def __init__(self) -> None:
        self._headers: OrderedDict[Likeness, DicomHeader] = OrderedDict()

    def keep(self, key: Likeness, header: DicomHeader) -> None:
        """Remember a sound header of one classic image."""
        if header.refusal is not None or len(header.frames) != 1 or header.frames[0].tile >= 0:
            return
        self._headers[key] = header
        if len(self._headers) > _KEPT:
            self._headers.popitem(last=False)

    def like(self, key: Likeness, opened: OpenedFile) -> DicomHeader | None:
        """Header of a file by that of another one of its series; None where it has to be read by itself."""
        known = self._headers.get(key)
        if known is None or known.pixel_length != opened.pixel_length:
            return None
        attributes = opened.attributes
        try:
            position = attributes.numbers("ImagePositionPatient")
            if len(position) != 3 or max(map(abs, position)) > _FARTHEST_MM:
                return None
            frame = known.frames[0]._replace(
                position=(position[0], position[1], position[2]),
                time_index=attributes.whole("TemporalPositionIdentifier"),
                acquisition_number=attributes.whole("AcquisitionNumber"),
                instance_number=attributes.whole("InstanceNumber"),
                acquisition_time=attributes.text("AcquisitionTime"),
            )
        except QuarantineError:
            return None
        return known._replace(
            sop_instance_uid=attributes.text("SOPInstanceUID") or "",
            size=opened.size,
            pixel_offset=opened.pixel_offset,
            frames=(frame,),
        )
