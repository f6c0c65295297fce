"""The last look at a scan before its pixels are stored: burned-in text, and the face where it is to go."""

from dataclasses import replace

from pipeline.errors import QuarantineError
from pipeline.ingest.burned_in_text import suspicious_text
from pipeline.ingest.deface import deface
from pipeline.ingest.found import FoundImage, FoundVolume
from pipeline.settings import IngestSettings


def cleared_scan(found: FoundVolume | FoundImage, settings: IngestSettings) -> FoundVolume | FoundImage:
    """The scan as it may be stored.

    Args:
        found: as a layout found it.
        settings: ``burned_in_text`` and ``deface``; text that is kept becomes the flag BURNED_IN_TEXT of a volume.

    Raises:
        QuarantineError: BURNED_IN_TEXT or NOT_DEFACED.
    """
    text = suspicious_text(found)
    if text is not None and settings.burned_in_text == "quarantine":
        raise text
    if isinstance(found, FoundVolume):
        scan = deface(found.scan) if settings.deface else found.scan
        if text is not None:
            scan = replace(scan, facts=replace(scan.facts, flags=(*scan.facts.flags, text.reason)))
        return found if scan is found.scan else replace(found, scan=scan)
    if settings.deface:
        advice = "Use scans with geometry, or set ingest.deface=false."
        raise QuarantineError("NOT_DEFACED", "an image that does not say where it lies in the head", advice)
    return found
