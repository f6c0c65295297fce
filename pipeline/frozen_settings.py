"""What every settings section is built of: the frozen base, and numbers and names with limits."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CLASS_NAME = r"\w[\w ,.()+&-]{0,63}"
"""What a class may be called: no separators, no markup, nothing that a table would take for a formula."""


def _class_name(text: str) -> str:
    if re.fullmatch(CLASS_NAME, text) is None:
        raise ValueError("a class is a letter, a digit or _, then at most 63 of these, spaces and , . ( ) + & -")
    return text


ClassName = Annotated[str, AfterValidator(_class_name)]


class FrozenSettings(BaseModel):
    """Base of every settings section: frozen, unknown keys forbidden, defaults checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
