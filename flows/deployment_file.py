"""Deployments as they stand in a ``prefect.yaml``: read and checked before Prefect is asked for anything.

The form is Prefect's; of its keys those below are taken. Its ``concurrency_limit`` is not: Prefect gives a run ten
seconds to begin before it takes the slot away and cancels the run, and flows that import torch need longer on a busy
machine. One run at a time is seen to by the workspace's lease, for which a run of a schedule waits. Parameters are
checked against the flows that they are for.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.sites import NAME_PATTERN
from pipeline.errors import SettingsError

TEMPLATE = Path(__file__).with_name("prefect.yaml")
"""The example that ships with scanloom."""

FLOWS = {
    "ingest": "flows.stage_flows.ingest",
    "train-lesions": "flows.stage_flows.train_lesions",
    "train-mr-to-ct": "flows.stage_flows.train_mr_to_ct",
    "synthesize": "flows.stage_flows.synthesize",
    "translate": "flows.stage_flows.translate",
    "evaluate": "flows.stage_flows.evaluate",
    "augment": "flows.augment.augment",
}
"""Entry points by name of the flow."""

NEW_DATA = "new-data"
"""The tag of deployments that run when their site's input holds new scans."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleEntry(_Strict):
    """When a deployment runs: a cron expression in a time zone, or every so many seconds."""

    cron: str | None = None
    timezone: str | None = None
    interval: Annotated[float, Field(ge=10)] | None = None
    anchor_date: datetime | None = None
    active: bool = True

    @model_validator(mode="after")
    def _one(self) -> "ScheduleEntry":
        if (self.cron is None) == (self.interval is None):
            raise ValueError("a schedule has either cron or interval")
        return self


class Pool(_Strict):
    """The work pool whose workers take the runs."""

    name: str = "scanloom"
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class DeploymentEntry(_Strict):
    """One deployment."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    entrypoint: str
    description: str | None = None
    parameters: dict[str, Any]
    schedules: tuple[ScheduleEntry, ...] = ()
    tags: tuple[str, ...] = ()
    work_pool: Pool = Pool()

    @model_validator(mode="after")
    def _known(self) -> "DeploymentEntry":
        if self.entrypoint not in FLOWS.values():
            raise ValueError(f"entrypoint: one of {', '.join(FLOWS.values())}")
        if not re.match(NAME_PATTERN, str(self.parameters.get("site", ""))):
            raise ValueError("parameters: site must be the name of a site, never a path")
        return self


class DeploymentFile(BaseModel):
    """A ``prefect.yaml``; keys that Prefect alone reads are left to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    deployments: Annotated[tuple[DeploymentEntry, ...], Field(min_length=1)]


def read_deployments(path: Path) -> tuple[DeploymentEntry, ...]:
    """The deployments of a file.

    Raises:
        SettingsError: there is none, or it is not valid.
    """
    if not path.is_file():
        raise SettingsError(
            "Deployments stand in a prefect.yaml, or are given by --site and a schedule.",
            found=f"no file {path.name}",
            allowed="a file in the form that `scanloom deploy --example` prints",
            change="scanloom deploy --example > prefect.yaml, then edit it; or give --site NAME --cron '0 2 * * *'.",
        )
    try:
        return DeploymentFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).deployments
    except yaml.YAMLError as error:
        found = f"no YAML: {error}"
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    raise SettingsError(
        "A deployment names a flow, a site and when to run.",
        found=found,
        allowed="what `scanloom deploy --example` shows",
        change=f"Correct {path.name}.",
    )


def quick_deployment(
    site: str, flow: str, *, cron: str | None, timezone: str | None, interval_minutes: float | None, new_data: bool
) -> DeploymentEntry:
    """A deployment from the options of a command; it is named for its site.

    Raises:
        SettingsError: an option is not valid.
    """
    entries = [
        *([{"cron": cron, "timezone": timezone}] if cron else []),
        *([{"interval": 60 * interval_minutes}] if interval_minutes else []),
    ]
    try:
        return DeploymentEntry.model_validate(
            {
                "name": site,
                "entrypoint": FLOWS.get(flow, flow),
                "parameters": {"site": site},
                "schedules": entries,
                "tags": [NEW_DATA] if new_data else [],
            }
        )
    except ValidationError as error:
        raise SettingsError(
            "A deployment names a flow, a site and when to run.",
            found="; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()),
            allowed=f"flows: {', '.join(FLOWS)}; at least ten seconds between two runs",
            change="Correct the options.",
        ) from None
