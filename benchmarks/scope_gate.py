"""How many wrong inputs does the scope gate refuse, and how many good ones?

Domain cards are made of a few training scans, other scans are held against them. Digital phantoms (head T1, head T2,
pelvis T1; other seeds than those that limits were chosen with) go through the preparation of MR; good ones are further
subjects, wrong ones are listed in `wrong_inputs`. Real slice pairs and MR simulated from real CT, where given, are
judged case by case against a card of all other cases.

    python -m benchmarks.scope_gate --out bench-out [--pairs DIR] [--simulated DIR]

``--pairs``: MR/ and CT/ with <case><slice, three digits>.png. ``--simulated``: MR/ with GT_<patient>-<slice>.png, where
the patient's third character tells heads (B) from pelves (P).
"""

import argparse
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from skimage.io import imread

from pipeline.body_mask import mr_body_mask
from pipeline.catalog import Catalog
from pipeline.domain_card import DomainCard, ScanFacts, ScopeMeasures, judge, measure_mr, scope_group
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.intensity import from_int16
from pipeline.phantom import PhantomGrid, PhantomTruth, phantom_subject
from pipeline.prepare.volumes import prepare_grey_case, prepare_mr_volume
from pipeline.settings import PrepareMRToCTSettings

Array = npt.NDArray[Any]
MODELS = (("HEAD", "T1"), ("PELVIS", "T1"), ("HEAD", "T2"))
SEEDS = {"training": 41, "good": 42, "wrong": 43}
GRIDS = {
    "HEAD": PhantomGrid((68, 80, 20), (3.2, 3.2, 8.0), (9.0, 14.0)),
    "PELVIS": PhantomGrid((72, 52, 12), (5.4, 5.4, 12.0), (12.0, 17.0)),
}
"""Half as fine as the phantoms' own grids, which takes an eighth of the time."""

SETTINGS = PrepareMRToCTSettings.model_validate({"spacing_mm": [4.0, 4.0, 8.0], "n4": {"enabled": False}})


@dataclass(frozen=True)
class _Scan:
    """Stands for a catalog with one scan."""

    voxels: Array
    affine: Array

    def volume(self, _: Mapping[str, Any]) -> tuple[Array, Array]:
        return self.voxels, self.affine


@dataclass
class Tally:
    """Inputs of one kind: refused of all, and the severities between which the decision lies."""

    wrong: bool
    refused: int = 0
    total: int = 0
    lowest: float = np.inf
    highest: float = 0.0
    reason: str = ""

    def add(self, refused: bool, severity: float, reason: str) -> None:
        """Count one input."""
        self.refused, self.total = self.refused + refused, self.total + 1
        self.lowest, self.highest = min(self.lowest, severity), max(self.highest, severity)
        self.reason = self.reason or reason


def measured(voxels: Array, affine: Array) -> ScopeMeasures:
    """Measures of a scan after preparation; headers say nothing, so that voxels and grid must tell."""
    prepared = prepare_mr_volume(cast(Catalog, _Scan(voxels, affine)), {}, SETTINGS)
    spacing = SETTINGS.spacing_mm[::-1]
    facts = ScanFacts.of({"scan_affine": np.asarray(affine).ravel().tolist()})
    return measure_mr(from_int16(prepared.slices), prepared.mask, spacing, facts)


def wrong_inputs(
    truth: PhantomTruth, contrast: PhantomTruth, anatomy: PhantomTruth
) -> Iterator[tuple[str, Array, Array]]:
    """Kind, voxels and affine of inputs that a model of the first phantom's kind must refuse."""
    affine, mr = truth.geometry.affine, truth.mr.astype(np.float32)
    top, (i, j, k) = np.percentile(mr, 99.5), mr.shape
    body = mr_body_mask(mr, truth.geometry.spacing_mm).astype(bool)
    yield "inverted", np.clip(top - mr, 0, None), affine
    yield "inverted inside the body", np.where(body, np.clip(top - mr, 0, None), mr), affine
    yield "other contrast (T1 for T2, T2 for T1)", contrast.mr, contrast.geometry.affine
    yield "other anatomy", anatomy.mr, anatomy.geometry.affine
    yield "CT as MR, HU", truth.ct_hu, affine
    yield "CT as MR, HU + 1024", truth.ct_hu.astype(np.float32) + 1024, affine
    yield "cropped to the right half", mr[: i // 2], affine
    yield "cropped to the back half", mr[:, : j // 2], affine
    yield "cropped by a fifth at all sides", mr[i // 5 : -i // 5, j // 5 : -j // 5], affine
    yield "cropped by a third below", mr[:, :, k // 3 :], affine
    yield "cropped by a third above", mr[:, :, : -k // 3], affine
    yield "lies front to back", mr[:, ::-1], affine
    yield "lies on its side", np.swapaxes(mr, 0, 1), affine
    yield "lies upside down", mr[:, :, ::-1], affine
    yield "voxels 1.6 times too large", mr, affine @ np.diag([1.6, 1.6, 1.6, 1])
    yield "slices twice as far apart", mr, affine @ np.diag([1, 1, 2, 1])
    yield "every third slice alone", mr[:, :, ::3], affine @ np.diag([1, 1, 3, 1])
    yield "noise", np.abs(np.random.default_rng(0).normal(0, 100, mr.shape)), affine


def _phantom(use: str, number: int, body_part: str, sequence: str) -> PhantomTruth:
    return phantom_subject(SEEDS[use], number, body_part, sequence, grid=GRIDS[body_part])


def phantom_rows(body_part: str, sequence: str, training: int, good: int, wrong: int) -> list[dict[str, Any]]:
    """Tallies of a model of one kind of phantom, by kind of input."""
    scans = [_phantom("training", number, body_part, sequence) for number in range(training)]
    card = _card([measured(scan.mr, scan.geometry.affine) for scan in scans], "HU", SETTINGS.spacing_mm)
    tallies: dict[str, Tally] = {"further subjects": Tally(wrong=False)}
    for number in range(good):
        scan = _phantom("good", number, body_part, sequence)
        _decide(card, tallies["further subjects"], lambda scan=scan: measured(scan.mr, scan.geometry.affine))
    for number in range(wrong):
        truth, other, elsewhere = (
            _phantom("wrong", number, *kind)
            for kind in (
                (body_part, sequence),
                (body_part, {"T1": "T2", "T2": "T1"}[sequence]),
                ({"HEAD": "PELVIS", "PELVIS": "HEAD"}[body_part], sequence),
            )
        )
        for kind, voxels, affine in wrong_inputs(truth, other, elsewhere):
            tally = tallies.setdefault(kind, Tally(wrong=True))
            _decide(card, tally, lambda voxels=voxels, affine=affine: measured(voxels, affine))
    return _rows(f"phantom {body_part.lower()} {sequence}", training, tallies)


def case_rows(
    name: str, cases: Mapping[str, Array], others: Mapping[str, Array], partners: Mapping[str, Array]
) -> list[dict[str, Any]]:
    """Tallies of grey slices (K, H, W) by case, each against a card of the other cases.

    Args:
        name: of the set.
        cases: MR.
        others: MR of another anatomy.
        partners: CT of the same slices.
    """
    known = {case: _grey(slices) for case, slices in cases.items()}
    elsewhere = {f"other anatomy {case}": slices for case, slices in others.items()}
    tallies: dict[str, Tally] = {"held-out cases": Tally(wrong=False)}
    for case, slices in cases.items():
        card = _card([found for other, found in known.items() if other != case], "grey", None)
        _decide(card, tallies["held-out cases"], lambda case=case: known[case])
        rows, columns = slices.shape[1] // 5, slices.shape[2] // 5
        wrong = {
            "inverted": 255 - slices,
            "cropped to one half": slices[:, :, : slices.shape[2] // 2],
            "cropped by a fifth at all sides": slices[:, rows:-rows, columns:-columns],
            "a third of the slices": slices[: len(slices) // 3],
            **({"CT as MR": partners[case]} if case in partners else {}),
            **elsewhere,
        }
        for kind, voxels in wrong.items():
            label = "other anatomy" if kind.startswith("other anatomy") else kind
            tally = tallies.setdefault(label, Tally(wrong=True))
            _decide(card, tally, lambda voxels=voxels: _grey(voxels))
    return _rows(name, len(cases) - 1, tallies)


def _grey(slices: Array) -> ScopeMeasures:
    prepared = prepare_grey_case(slices.astype(np.uint8), "MR", SETTINGS.mr_percentiles)
    return measure_mr(from_int16(prepared.slices), prepared.mask, None)


def _card(scans: Sequence[ScopeMeasures], unit: str, spacing: tuple[float, float, float] | None) -> DomainCard:
    return DomainCard(unit=unit, spacing_mm=spacing, groups=(scope_group(None, None, scans),), ct=None)


def _decide(card: DomainCard, tally: Tally, measure: Any) -> None:
    facts = {"unit": card.unit, "spacing_mm": None if card.spacing_mm is None else list(card.spacing_mm)}
    try:
        verdict = judge(card, measure(), facts)
    except InputError as error:  # the preparation refuses it already
        tally.add(True, 9.0, f"preparation: {error.rule}")
        return
    tally.add(not verdict.in_scope, verdict.nearest, verdict.findings[0].sentence() if verdict.findings else "")


def _rows(model: str, training: int, tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "training_scans": training,
            "input": kind,
            "wrong": tally.wrong,
            "refused": tally.refused,
            "of": tally.total,
            "severity": [round(tally.lowest, 2), round(tally.highest, 2)],
            "first_reason": tally.reason,
        }
        for kind, tally in tallies.items()
    ]


def _slices(folder: Path, prefix: str, every: int) -> dict[str, Array]:
    """Every n-th slice by case: names are prefix, case, an optional hyphen, three digits."""
    found: dict[str, list[Array]] = defaultdict(list)
    for path in sorted(folder.glob("*.png")):
        found[path.stem.removeprefix(prefix)[:-3].rstrip("-")].append(np.asarray(imread(path)))
    return {
        case: np.stack([image if image.ndim == 2 else image[..., 0] for image in images[::every]])
        for case, images in found.items()
    }


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shares = {}
    for name, wrong in (("wrong_refused", True), ("good_refused", False)):
        own = [row for row in rows if row["wrong"] is wrong]
        refused, total = sum(row["refused"] for row in own), sum(row["of"] for row in own)
        shares[name] = {"refused": refused, "of": total, "share": round(refused / max(1, total), 4)}
    return shares


def main() -> None:
    """Judge everything that is there; write ``scope_gate.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=8)
    parser.add_argument("--good", type=int, default=30)
    parser.add_argument("--wrong", type=int, default=6)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--simulated", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every n-th of the slices given")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(asked.workers) as pool:
        for found in as_completed(pool.submit(*work) for work in _works(asked)):
            rows += found.result()
            _write(asked, sorted(rows, key=lambda row: str(row["model"])))
    for name, share in _sets(rows).items():
        print(name, share)


def _works(asked: argparse.Namespace) -> list[tuple[Any, ...]]:
    """What is to be done, each a function and its arguments."""
    works: list[tuple[Any, ...]] = [(phantom_rows, *model, asked.training, asked.good, asked.wrong) for model in MODELS]
    if asked.simulated is not None:
        simulated = _slices(asked.simulated / "MR", "GT_", asked.every)
        heads = {case: slices for case, slices in simulated.items() if case[1] == "B"}
        pelves = {case: slices for case, slices in simulated.items() if case[1] == "P"}
        few = [dict(list(other.items())[:2]) for other in (pelves, heads)]
        works += [
            (case_rows, "simulated heads", heads, few[0], {}),
            (case_rows, "simulated pelves", pelves, few[1], {}),
        ]
    if asked.pairs is not None:
        mr, ct = (_slices(asked.pairs / side, "", asked.every) for side in ("MR", "CT"))
        works.append((case_rows, "real heads", mr, {}, ct))
    return works


def _sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = sorted({str(row["model"]) for row in rows})
    return {"all": _shares(rows)} | {name: _shares([row for row in rows if row["model"] == name]) for name in names}


def _write(asked: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    content = {
        "benchmark": "scope_gate",
        "command": f"python -m benchmarks.scope_gate --training {asked.training} --good {asked.good} --wrong "
        f"{asked.wrong} --every {asked.every} --pairs PAIRS --simulated SIMULATED",
        "seeds": SEEDS,
        "shares": _sets(rows),
        "inputs": list(rows),
        "python": platform.python_version(),
    }
    write_json(asked.out / "scope_gate.json", content)


if __name__ == "__main__":
    main()
