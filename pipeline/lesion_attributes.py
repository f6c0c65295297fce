"""Attributes of lesion images beside their class: what there is, which values it takes, how networks are told.

An attribute has *levels* (``sequence``: T1, T2) or is a number between two limits (``size_mm``). Either may be missing,
in training and in a recipe. Networks are given the index of a level, or a number mapped to [-1, 1]; NaN where missing.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from pipeline.errors import InputError
from pipeline.generate_settings import AttributeValue

ATTRIBUTE_PREFIX = "attribute_"
"""Columns of tables that hold attributes begin with it."""

RANGE_WORDS = ("small", "medium", "large")
"""Thirds of the training images, by a number: what a recipe may say in place of a range."""


_UNITS = ("mm",)


class LesionAttribute(BaseModel):
    """One attribute that a generator is conditioned on.

    Attributes:
        name: column, e.g. ``size_mm``.
        levels: values of a categorical attribute in the order of their index; empty for a number.
        low, high: smallest and largest number among the training images.
        thirds: the two numbers that part the training images into three equal groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    levels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    thirds: tuple[float, float] = (0.0, 0.0)

    @property
    def unit(self) -> str | None:
        """Unit of a number, from its name: ``size_mm`` is in mm."""
        unit = self.name.rpartition("_")[2]
        return unit if unit in _UNITS and not self.levels else None

    @property
    def allowed(self) -> str:
        """The values that a recipe may ask for, in words."""
        if self.levels:
            return ", ".join(self.levels)
        return f"{', '.join(RANGE_WORDS)}, or numbers from {self.low:g} to {self.high:g}"

    def resolve(self, value: AttributeValue) -> str | tuple[float, float]:
        """A level, or the ends of a range, that a recipe asks for.

        Raises:
            InputError: an unknown level or word, or a range outside of what the training images show.
        """
        if self.levels:
            known = {level.casefold(): level for level in self.levels}
            level = known.get(str(value).casefold())
            if level is None:
                raise self._refused(value, list(self.levels))
            return level
        if isinstance(value, str):
            if value.casefold() not in RANGE_WORDS:
                raise self._refused(value, list(RANGE_WORDS))
            ends = (self.low, *self.thirds, self.high)
            third = RANGE_WORDS.index(value.casefold())
            return ends[third], ends[third + 1]
        low, high = value if isinstance(value, tuple) else (value, value)
        # Limits are shown with few digits; what was read off them must not be refused for its rounding.
        slack = 1e-4 * (abs(self.low) + abs(self.high))
        if not (self.low - slack <= low <= high <= self.high + slack):
            raise self._refused(f"{low:g}" if low == high else f"{low:g} to {high:g}", [])
        return max(low, self.low), min(high, self.high)

    def encode(self, value: str | float | None) -> float:
        """The number that networks are given; NaN for a missing value or a level that training never saw."""
        if value is None:
            return math.nan
        if self.levels:
            return float(self.levels.index(str(value))) if value in self.levels else math.nan
        return float(np.clip(2 * (float(value) - self.low) / (self.high - self.low) - 1, -1, 1))

    def _refused(self, value: object, near: list[str]) -> InputError:
        guess = difflib.get_close_matches(str(value), near, n=1)
        return InputError(
            f"A recipe asks for values of {self.name} that training images have.",
            found=str(value),
            allowed=self.allowed,
            change=f"Did you mean `{guess[0]}`?" if guess else f"Correct {self.name} in the recipe.",
        )


def attributes_of(rows: pl.DataFrame, names: Sequence[str]) -> tuple[LesionAttribute, ...]:
    """Describe the columns of the training rows.

    Args:
        rows: one row a training image.
        names: columns of text or numbers; null is missing.

    Raises:
        InputError: a column that is missing everywhere, or equal everywhere: nothing can be learned from it.
    """
    return tuple(_described(rows[name].drop_nulls(), name) for name in names)


def _described(values: pl.Series, name: str) -> LesionAttribute:
    if values.n_unique() < 2:
        raise InputError(
            "An attribute must differ among the training images.",
            found=f"{name}: {'one value' if len(values) else 'known of no image'}",
            allowed="two values or more",
            change="Leave it out of prepare.lesions.attributes.",
        )
    if values.dtype == pl.String:
        return LesionAttribute(name=name, levels=tuple(sorted(values.unique().to_list())))
    numbers = values.to_numpy().astype(np.float64)
    first, second = np.quantile(numbers, (1 / 3, 2 / 3))
    thirds = (float(first), float(second))
    return LesionAttribute(name=name, low=float(numbers.min()), high=float(numbers.max()), thirds=thirds)


def attributes_from(facts: Mapping[str, Any]) -> tuple[LesionAttribute, ...]:
    """Attributes of a prepared set, from its facts; none where it has none."""
    return tuple(LesionAttribute.model_validate(attribute) for attribute in facts.get("attributes", ()))


def encoded(attributes: Sequence[LesionAttribute], rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    """(N, attributes) numbers for networks, NaN where missing."""
    values = [[attribute.encode(row.get(attribute.name)) for attribute in attributes] for row in rows]
    return np.asarray(values, dtype=np.float32).reshape(len(rows), len(attributes))
