"""Prefect's settings, made before Prefect is imported.

Unless ``PREFECT_API_URL`` names a server, an embedded one is started whose database lies in the workspace; nothing is
sent anywhere else. Prefect's own log lines stay out of the terminal, where progress is shown, and out of its database,
where they could carry paths; ``--debug`` shows them.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

REPORTS_URL = "SCANLOOM_REPORTS_URL"
"""Environment variable: where reports are shown, e.g. ``http://127.0.0.1:4280``."""

STARTUP_TIMEOUT_S = 120
"""The embedded server makes its database first; on a busy machine that outlasts Prefect's default of 20 s."""

ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}
RUN_RETRIES = 1
"""A request to a server that was reached before is tried again after 2, 4, 8 … s: with Prefect's default of 5 retries a
minute passes for each of the requests that end a run, and the server of a single run never comes back."""

_UNLESS_SET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_TIMEOUT_S),
}


def settle(workspace_root: Path, *, debug: bool, environment: MutableMapping[str, str] | None = None) -> bool:
    """Set Prefect's environment variables; call it before ``import prefect``.

    Args:
        workspace_root: absolute workspace folder.
        debug: let Prefect log to the terminal.
        environment: what to change; the process's own when None.

    Returns:
        True where an embedded server is used, False where ``PREFECT_API_URL`` names one.
    """
    variables = os.environ if environment is None else environment
    embedded = not variables.get("PREFECT_API_URL")
    variables.update(ALWAYS)
    for name, value in _UNLESS_SET.items():
        variables.setdefault(name, value)
    variables["PREFECT_LOGGING_LEVEL"] = "DEBUG" if debug else "CRITICAL"
    variables["PREFECT_INTERNAL_LOGGING_LEVEL"] = "ERROR" if debug else "CRITICAL"
    if embedded:
        variables["PREFECT_HOME"] = str(workspace_root / ".prefect")
        variables["PREFECT_PROFILES_PATH"] = str(workspace_root / ".prefect" / "profiles.toml")
        for name in ("NO_PROXY", "no_proxy"):  # a proxy must not stand between a run and its own server
            variables[name] = ",".join(filter(None, (variables.get(name), "127.0.0.1")))
    return embedded


def settle_run(workspace_root: Path, *, debug: bool, environment: MutableMapping[str, str] | None = None) -> bool:
    """`settle` for a single run, which does not wait long for a server of its own that is gone."""
    variables = os.environ if environment is None else environment
    embedded = settle(workspace_root, debug=debug, environment=variables)
    if embedded:
        variables.setdefault("PREFECT_CLIENT_MAX_RETRIES", str(RUN_RETRIES))
    return embedded
