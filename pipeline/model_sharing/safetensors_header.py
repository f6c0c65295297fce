"""Header of a safetensors file, read before any library sees it: 8 bytes of length, JSON, then the tensors.

Form after the safetensors format description. A header that lies about its file is refused.
"""

import json
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import QuarantineError

_HEADER_LIMIT_BYTES = 4 << 20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_ADVICE = "Ask for it again, and copy it whole."


def check_header(path: Path) -> None:
    """The length of the header, types, and that tensors fill the file without gap or overlap.

    Raises:
        QuarantineError: BAD_HEADER.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT_BYTES, size - 8):
            found = f"a file of {size} bytes that says its header has {length}"
            raise QuarantineError("BAD_HEADER", found, "Only safetensors are read; pickles never are.")
        header = stream.read(length)
    try:
        tensors = json.loads(header)
        spans = sorted(_span(entry) for name, entry in tensors.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = f"a header that is not of the format ({type(error).__name__})"
        raise QuarantineError("BAD_HEADER", found, _ADVICE) from None
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != size - 8 - length:
        found = f"{len(spans)} tensors that do not fill the {size} bytes of the file"
        raise QuarantineError("BAD_HEADER", found, _ADVICE)


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    count = 1
    for side in entry["shape"]:
        if type(side) is not int or side < 0:
            raise ValueError
        count *= side
    if type(begin) is not int or type(end) is not int or begin < 0 or end - begin != count * _BYTES[entry["dtype"]]:
        raise ValueError
    return begin, end
