"""Planned DICOM volumes: plain pixels are copied here, everything that has to be decoded is read in a child process.

The headers have been parsed in a child by then. What is left of a plain file are 16-bit values at a known place: they
are copied, shifted and counted on, which no content of a file can harm, so that a child would only cost time.
"""

import math
from collections.abc import Iterator, Sequence

from pipeline.ingest.scan_parsers import read_planned_volume
from pipeline.ingest.volume_memory import VolumeMemory
from pipeline.safe_parse import Limits, Outcome, parse_all
from pipeline.scan_io import Scan
from pipeline.scan_io.dicom.read_volume import may_be_plain, read_plain_volume
from pipeline.scan_io.dicom.volume_plan import VolumePlan

PLAIN_BYTES = 256 << 20
"""Size of the largest volume that is read here; the limits of the child hold for larger ones."""


def volumes(plans: Sequence[VolumePlan], limits: Limits) -> Iterator[Outcome[VolumePlan, Scan]]:
    """Yield the outcome of each plan, in order."""
    memory = VolumeMemory()
    plain = [_is_small(plan) and may_be_plain(plan) for plan in plans]
    others = parse_all(read_planned_volume, [plan for plan, here in zip(plans, plain, strict=True) if not here], limits)
    for plan, here in zip(plans, plain, strict=True):
        if not here:
            yield next(others)
            continue
        scan = _plain(plan, memory)
        if scan is None:
            yield from parse_all(read_planned_volume, [plan], limits)
        else:
            yield Outcome(plan, scan, None)


def _is_small(plan: VolumePlan) -> bool:
    pixels = plan.headers[0].pixels
    return pixels is not None and math.prod((len(plan.frames), pixels.rows, pixels.columns, 2)) <= PLAIN_BYTES


def _plain(plan: VolumePlan, memory: VolumeMemory) -> Scan | None:
    try:
        return read_plain_volume(plan, memory.empty)
    except (OverflowError, TypeError, ValueError):  # values from a child that no header can hold
        return None
