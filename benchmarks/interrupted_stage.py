"""Kills and starves a small stage at every call that changes its workspace: ``python -m benchmarks.interrupted_stage``.

The machinery alone, without torch: lock, lease, ledger, partial folder, manifest, rename. It takes seconds, so that no
call is left out. `benchmarks.interruptions` does the same, spread over the real stages.
"""

import argparse
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.interrupted_runs import Fault, counted, run_forked, torn, tree
from benchmarks.interruptions import ERRORS, TYPED
from benchmarks.system_call_faults import FAIL_ON, KILL_BEFORE, KILL_HALFWAY, reload_with_faults


def _command(root: Path) -> Callable[[], None]:
    from pydantic import BaseModel

    from pipeline.errors import ScanloomError
    from pipeline.files import atomic_folder, write_json
    from pipeline.lease import held
    from pipeline.stage_runner import Stage, StageContext, run_stage
    from pipeline.workspace import Workspace

    class Nothing(BaseModel):
        pass

    def body(context: StageContext) -> dict[str, object]:
        with atomic_folder(context.folder / "inner") as inner:
            write_json(inner / "numbers.json", list(range(1000)))
        (context.folder / "data").write_bytes(bytes(10_000))
        return {"answer": 42}

    def command() -> None:
        try:
            workspace = Workspace.open(root, bytes(32))
            with held(workspace, "test"):
                run_stage(workspace, Stage("demo", "pipeline.files", body, resumable=True), Nothing(), records={})
        except ScanloomError as error:
            raise SystemExit(error.exit_code) from None
        except Exception as error:
            from pipeline.disk_errors import disk_error

            broken = disk_error(error)
            if broken is None:
                raise
            raise SystemExit(broken.exit_code) from None

    return command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interrupted_stage", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the workspace")
    parser.add_argument("--every", type=int, default=1, help="take every nth call only")
    parser.add_argument("--out", type=Path, help="JSON file of the outcome")
    options = parser.parse_args()
    work = options.work.resolve()
    reload_with_faults("benchmarks.interrupted_stage", work)
    root = work / "live"
    shutil.rmtree(root, ignore_errors=True)
    command = _command(root)
    calls = counted(command, root, work)
    whole = tree(root)
    bad, endings = [], Counter[str]()
    ways = {"kill": (KILL_BEFORE, 0), "kill halfway": (KILL_HALFWAY, 0)} | {
        name: (FAIL_ON, number) for name, number in ERRORS.items()
    }
    for shift, (how, (mode, error)) in enumerate(ways.items()):
        for call in range(1 + shift % options.every, len(calls) + 1, options.every):
            shutil.rmtree(root, ignore_errors=True)
            ended = run_forked(command, Fault(root, call, mode, error), work)
            broken = torn(root) if root.exists() else []
            again = run_forked(command, None, work)
            # A heartbeat more or less changes the number of calls, so that the last ones may not come.
            expected = ended.code in ({0, *TYPED} if mode == FAIL_ON else {0, -signal.SIGKILL})
            endings[f"{how}: {ended.code}"] += 1
            if not expected or broken or again.code != 0 or tree(root) != whole:
                bad.append([how, call, calls[call - 1], ended.code, again.code, broken, ended.said, again.said])
    found = {"calls": len(calls), "kinds": Counter(calls), "endings": endings, "bad": bad}
    print(json.dumps(found))
    if options.out:
        facts = {"command": "python -m benchmarks.interrupted_stage --work DIR --out FILE", **found}
        options.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
