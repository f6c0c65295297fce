"""Prefect automations that tell people: a run failed, a training raised an alarm, an evaluation reached a verdict.

They use a notification block that exists at the server (e-mail, Slack, Teams, a webhook of yours …). What they say
holds names of flows and sites, kinds and outcomes, nothing of a patient and no path.
"""

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from flows.deployments import TAG
from flows.events import ALARM, RESOURCE_PREFIX, VERDICT
from pipeline.errors import SettingsError

_TAGGED = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
_FLOW_RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
_SITES = {"prefect.resource.id": f"{RESOURCE_PREFIX}*"}
_OF_RUN = "Flow {{ flow.name }}, run {{ flow_run.name }}: {{ flow_run.state.name }}.\n{{ flow_run.state.message }}"
_OF_SITE = "{{ event.resource.id }}\n{{ event.payload }}"


def _automations(block: UUID) -> list[AutomationCore]:
    failed = _trigger({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}, _FLOW_RUNS)
    failed = failed.model_copy(update={"match_related": ResourceSpecification.model_validate(_TAGGED)})
    wanted = (
        ("scanloom: a run failed", failed, "scanloom: a run failed", _OF_RUN),
        ("scanloom: a training raised an alarm", _trigger({ALARM}, _SITES), "scanloom: training alarm", _OF_SITE),
        ("scanloom: an evaluation reached a verdict", _trigger({VERDICT}, _SITES), "scanloom: verdict", _OF_SITE),
    )
    return [
        AutomationCore(
            name=name,
            description="Made by `scanloom notify`",
            trigger=trigger,
            actions=[SendNotification(block_document_id=block, subject=subject, body=body)],
        )
        for name, trigger, subject, body in wanted
    ]


def _trigger(events: set[str], resource: dict[str, str]) -> EventTrigger:
    return EventTrigger(
        expect=events,
        match=ResourceSpecification.model_validate(resource),
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def install(block: str) -> list[str]:
    """Make the three automations, or bring those of the same names up to date.

    Args:
        block: the notification block, ``type/name`` as Prefect's pages show it, e.g. ``slack-webhook/ward``.

    Returns:
        Names of the automations.

    Raises:
        SettingsError: there is no such block at the server.
    """
    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind)
        except ObjectNotFound:
            raise SettingsError(
                "Notifications go through a block of the Prefect server.",
                found=f"no block {block}",
                allowed="type/name of a notification block, e.g. slack-webhook/ward",
                change="Make it under Blocks in Prefect's pages, then give its type and name.",
            ) from None
        return [_install(client, automation) for automation in _automations(document.id)]


def _install(client: SyncPrefectClient, automation: AutomationCore) -> str:
    for old in client.read_automations_by_name(automation.name):
        client.delete_automation(old.id)
    client.create_automation(automation)
    return automation.name
