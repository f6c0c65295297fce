"""Run the benchmarks: ``python -m benchmarks [names] [--out FOLDER] [--threads N] [--peer NAME=PATH]``.

Each prints one line a comparison and writes one JSON file, with the command that repeats it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import (
    ingest,
    lesion_gan,
    light_generator,
    metrics,
    mr_to_ct,
    prepared_loading,
    start_up,
    volume_translation,
)
from benchmarks.comparison import Comparison

Peers = dict[str, Path]

BENCHMARKS: dict[str, Callable[[Peers], list[Comparison]]] = {
    "start_up": lambda peers: start_up.run(),
    "ingest": lambda peers: ingest.run(),
    "prepared_loading": lambda peers: prepared_loading.run(),
    "metrics": lambda peers: metrics.run(),
    "lesion_gan": lambda peers: lesion_gan.run(peers.get("lesion_gan")),
    "mr_to_ct": lambda peers: mr_to_ct.run(peers.get("mr_to_ct")),
    "light_generator": lambda peers: light_generator.run(),
    "volume_translation": lambda peers: volume_translation.run(),
}
"""Every benchmark by name."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed of scanloom beside named peers.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the JSON files")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="peer of a training step",
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    peers = {name: Path(path) for name, _, path in (item.partition("=") for item in options.peer)}
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name in options.names or BENCHMARKS:
        for comparison in BENCHMARKS[name](peers):
            comparison.write(options.out)
            print(comparison.line(), flush=True)


if __name__ == "__main__":
    main()
