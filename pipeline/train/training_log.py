"""The training log: means of the logged terms over each interval, as Parquet rows and TensorBoard events."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Collects terms and turns them into one row an interval.

    Args:
        folder: training output; TensorBoard events go to ``tensorboard/`` in it.
        rows: rows of an earlier part of the same training.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        self.rows = list(rows)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._images, self._since = 0, time.monotonic()
        done = int(self.rows[-1]["images"]) if self.rows else 0
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def add(self, terms: Mapping[str, Tensor], images: int) -> None:
        """Take one step's terms; tensors stay on their device until the interval ends."""
        for name, term in terms.items():
            value = term.double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._images += images

    def close_interval(self, images: int, measures: Mapping[str, float]) -> None:
        """Write one row for the interval that ends at ``images``, with what was measured at its end."""
        row: dict[str, Any] = {"images": images}
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, value in sorted((means | dict(measures)).items()):
            row[name] = value if math.isfinite(value) else None
            self._writer.add_scalar(name, value, images)
        speed = self._images / max(time.monotonic() - self._since, 1e-9)
        self._writer.add_scalar("images_per_s", speed, images)
        self.rows.append(row)
        self._sums, self._counts, self._images, self._since = {}, {}, 0, time.monotonic()

    def open_interval(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Sums and counts of the interval that is not closed yet, for a checkpoint."""
        sums = {f"log/{name}": total.clone() for name, total in self._sums.items()}
        return sums, self._counts | {"": self._images}

    def reopen_interval(self, tensors: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Inverse of `open_interval`."""
        self._counts = {name: count for name, count in counts.items() if name}
        self._sums = {name: tensors[f"log/{name}"].clone() for name in self._counts}
        self._images = counts[""]

    def mark(self, alarm: str) -> None:
        """Name an alarm in the last row."""
        self.rows[-1]["alarm"] = ", ".join(filter(None, (self.rows[-1].get("alarm"), alarm)))

    def add_alarm(self, sentence: str, images: int) -> None:
        """Show an alarm in TensorBoard."""
        self._writer.add_text("alarm", sentence, images)

    def add_picture(self, picture: Any, images: int) -> None:
        """Show a grid (H, W) in TensorBoard."""
        self._writer.add_image("grid", picture, images, dataformats="HW")

    def write(self, path: Path) -> None:
        """Write every row as Parquet, and flush the events."""
        table = pl.DataFrame(self.rows, infer_schema_length=None)
        table.select("images", *sorted(set(table.columns) - {"images"})).write_parquet(path)
        self.close()

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()

    @property
    def last(self) -> dict[str, Any]:
        """The last row."""
        return dict(self.rows[-1]) if self.rows else {}
