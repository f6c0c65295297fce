"""The new-data trigger: a deployment runs once for each new set of scans in its site's input folder.

A set is told by the content of its files, the same hash that an ingest's key holds, made with the workspace's secret
key: the ledger knows whether it was ingested. A file that was only touched makes no new set. A folder that still
changes is left until it holds still for two looks, so that half a transfer starts nothing.

Nothing is lost between two looks, or while the service is down: the next look compares what is there with what was
ingested. Nothing runs twice: the run's idempotency key is the set's hash, and its slot in the ledger too.
"""

import sys
import threading
from collections.abc import Iterable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse

from flows.deployment_file import NEW_DATA
from flows.deployments import TAG
from flows.sites import read_site, site_names
from flows.stage_flows import TRIGGER_TAG
from pipeline.errors import ScanloomError
from pipeline.ingest.watching import Look, look
from pipeline.ledger import Ledger
from pipeline.workspace import Workspace

LOOK_INTERVAL_S = 60.0
"""Seconds between two looks at an input folder."""


class Watcher:
    """Looks at the inputs of all deployments of the tag `NEW_DATA` whose sites this machine knows."""

    def __init__(self) -> None:
        self._last: dict[str, Look] = {}
        self._told: set[tuple[UUID, str]] = set()

    def look_once(self) -> list[str]:
        """Look at every site; returns the names of the flow runs that were started."""
        started = []
        for deployment in watched_deployments():
            site = str(deployment.parameters.get("site", ""))
            try:
                found = self._settled(site)
            except (ScanloomError, OSError) as error:
                sys.stderr.write(f"{site}: {type(error).__name__} while looking for new scans\n")
                continue
            if found is not None and (deployment.id, found) not in self._told:
                self._told.add((deployment.id, found))
                started.append(_start(deployment, found))
        return started

    def look_until(self, stopped: threading.Event, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Look every ``interval_s`` seconds until ``stopped`` is set; a server that does not answer is asked again."""
        while True:
            try:
                for name in self.look_once():
                    sys.stderr.write(f"new scans: started {name}\n")
            except Exception as error:
                sys.stderr.write(f"{type(error).__name__} while looking for new scans; looking again\n")
            if stopped.wait(interval_s):
                return

    def _settled(self, site: str) -> str | None:
        """Hash of a new set that held still since the last look."""
        known = read_site(site)
        workspace = Workspace.open(known.workspace)
        now = look(workspace, known.input, self._last.get(site))
        self._last[site] = now
        if now.fingerprint is None or ingested(workspace, now.fingerprint):
            return None
        return now.fingerprint


def ingested(workspace: Workspace, fingerprint: str) -> bool:
    """Whether a catalog of this set was ever finished."""
    rows = Ledger(workspace.ledger_path).rows("ingest")
    return any(row.state == "completed" and row.inputs.get("input") == fingerprint for row in rows)


def watched_deployments() -> Iterable[DeploymentResponse]:
    """Deployments of the tag whose sites this machine knows."""
    here = set(site_names())
    with get_client(sync_client=True) as client:
        tags = DeploymentFilterTags(all_=[TAG, NEW_DATA])
        found = client.read_deployments(deployment_filter=DeploymentFilter(tags=tags))
    return [each for each in found if not each.paused and each.parameters.get("site") in here]


def _start(deployment: DeploymentResponse, fingerprint: str) -> str:
    """Name of the run for a set: a new one, or the one that was started for it before."""
    short = fingerprint[:16]
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            deployment.id,
            idempotency_key=f"{NEW_DATA}-{deployment.id}-{short}",
            tags=[f"{TRIGGER_TAG}{NEW_DATA} {short}"],
        )
    return run.name
