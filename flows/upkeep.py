"""What `scanloom status`, `repair` and `gc` do: who works, what broke, what may go."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.chain import STEPS
from flows.information import existing_workspace
from flows.progress import duration
from flows.words import counted, workspace_option
from pipeline.files import PARTIAL_SUFFIX
from pipeline.housekeeping import Removal, half_outputs, remove, superseded
from pipeline.lease import Lease, bury, held, leases
from pipeline.ledger import Ledger, LedgerRow
from pipeline.promotions import promoted_models
from pipeline.stage_runner import verified_record
from pipeline.workspace import Workspace

RESUMABLE = frozenset({"train_lesions", "train_mr_to_ct", "synthesize_lesions", "translate_mr_to_ct"})
"""Stages that go on with what they left behind."""

CURRENT = frozenset({*STEPS, "contact_sheet"})
"""Stages whose older outputs a run makes again when they are needed."""


def print_status(console: Console, folder: Path) -> None:
    """Show who holds the workspace, what the last runs did, what is broken."""
    workspace = existing_workspace(folder)
    ledger = Ledger(workspace.ledger_path)
    known = leases(ledger)
    _print_holder(console, ledger, [lease for lease in known if lease.ended_at is None])
    ended = [lease for lease in known if lease.ended_at is not None]
    if ended:
        table = Table(title="Last runs", title_justify="left")
        for heading in ("run", "what", "began", "took", "outcome"):
            table.add_column(heading)
        for lease in ended[-5:]:
            took = duration(max(0.0, (lease.ended_at or 0.0) - lease.began_at))
            table.add_row(str(lease.id), lease.purpose, _clock(lease.began_at), took, lease.outcome or "")
        console.print(table)
    for stage, model in promoted_models(workspace).items():
        if model.decisions:
            _say(console, f"{stage}: {model.decisions[-1].sentence()}")
    rows = ledger.rows()
    failed = [row for row in rows if row.state == "failed"]
    if failed and failed[-1].id == max(row.id for row in rows if row.stage == failed[-1].stage):
        console.print(f"last failure, in {failed[-1].stage}:\n{failed[-1].message}", markup=False, highlight=False)
    _print_broken(console, workspace, ledger, folder)


def _print_holder(console: Console, ledger: Ledger, held_now: Sequence[Lease]) -> None:
    living = [lease for lease in held_now if not lease.dead()]
    if not living:
        console.print("Nobody works in this workspace.")
    for lease in living:
        age = max(0.0, time.time() - lease.heartbeat_at)
        text = f"At work: {lease.purpose}, process {lease.owner.process}, since {_clock(lease.began_at)}"
        console.print(f"{text}; last heartbeat {duration(age)} ago", markup=False, highlight=False, soft_wrap=True)
        for row in ledger.running():
            if row.lease == lease.id:
                since = duration(max(0.0, time.time() - row.started_at))
                console.print(f"  {row.stage} for {since}", markup=False, highlight=False)


def _print_broken(console: Console, workspace: Workspace, ledger: Ledger, folder: Path) -> None:
    living = {lease.id for lease in leases(ledger, open_only=True) if not lease.dead()}
    dead = [lease for lease in leases(ledger, open_only=True) if lease.id not in living]
    zombies = [row for row in ledger.running() if row.lease not in living and row.owner.alive() is not True]
    halves = [] if living else half_outputs(workspace, RESUMABLE)
    partials = [path for path in workspace.root.glob(f"*/*{PARTIAL_SUFFIX}") if path.parent.name in RESUMABLE]
    if partials and not living:
        console.print(f"{counted(len(partials), 'stopped step')} that a run goes on with", highlight=False)
    if dead or zombies or halves:
        counts = ((len(dead), "dead lease"), (len(zombies), "dead step"), (len(halves), "half output"))
        found = ", ".join(counted(count, what) for count, what in counts)
        _say(console, f"{found}; the next run deals with them, or scanloom repair{workspace_option(folder)}")


def repair(console: Console, folder: Path, *, dry_run: bool, verify: bool) -> None:
    """Close what dead processes left open, remove half outputs, mark Prefect's zombies.

    Args:
        console: where to tell.
        folder: the workspace.
        dry_run: only tell.
        verify: check every output against its hashes too, and set damaged ones aside.

    Raises:
        WorkspaceBusyError: a run is at work.
    """
    workspace = existing_workspace(folder)
    ledger = Ledger(workspace.ledger_path)
    with workspace.locked():
        dead = [lease for lease in leases(ledger, open_only=True) if lease.dead()]
        rows = _dead_rows(ledger, dead)
        halves = half_outputs(workspace, RESUMABLE)
        for lease in dead:
            _say(console, f"dead lease: {lease.purpose}, process {lease.owner.process}, since {_clock(lease.began_at)}")
        for row in rows:
            _say(console, f"dead step: {row.stage} {row.key[:16]}")
        for half in halves:
            _say(console, f"{half.why}: {half.path.relative_to(workspace.root)}")
        if not dry_run:
            bury(ledger)
            remove(halves)
        damaged = _damaged(workspace, set_aside=not dry_run) if verify else []
        for path in damaged:
            _say(console, f"damaged: {path.relative_to(workspace.root)}")
    done = "would be repaired" if dry_run else "repaired"
    total = len(dead) + len(rows) + len(halves) + len(damaged)
    console.print(f"{counted(total, 'thing')} {done}." if total else "Nothing is broken.", highlight=False)


def _dead_rows(ledger: Ledger, dead: Sequence[Lease]) -> list[LedgerRow]:
    gone = {lease.id for lease in dead}
    return [row for row in ledger.running() if row.lease in gone or row.owner.alive() is False]


def _damaged(workspace: Workspace, *, set_aside: bool) -> list[Path]:
    finished = [path.parent for path in sorted(workspace.root.glob("*/*/record.json")) if not path.parent.suffix]
    return [path for path in finished if verified_record(path, set_aside=set_aside) is None]


def collect_garbage(console: Console, folder: Path, *, dry_run: bool, keep: int) -> None:
    """Remove outputs that nothing current needs.

    Args:
        console: where to tell.
        folder: the workspace.
        dry_run: only tell.
        keep: newest outputs of each step that are kept, with all that they were made from.

    Raises:
        WorkspaceBusyError: a run is at work.
    """
    workspace = existing_workspace(folder)
    with held(workspace, "gc") if not dry_run else workspace.locked():
        removals: list[Removal] = half_outputs(workspace, RESUMABLE) + superseded(workspace, CURRENT, keep=keep)
        for removal in removals:
            name = removal.path.relative_to(workspace.root)
            _say(console, f"{removal.bytes / 1e6:10,.1f} MB  {name}  ({removal.why})")
        freed = sum(removal.bytes for removal in removals) if dry_run else remove(removals)
    done = "would be freed" if dry_run else "freed"
    console.print(f"{freed / 1e6:,.1f} MB {done} in {counted(len(removals), 'place')}.", highlight=False)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
