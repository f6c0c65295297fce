from pathlib import Path

import pytest
import yaml

from flows.deployment_file import FLOWS, NEW_DATA, TEMPLATE, quick_deployment, read_deployments
from flows.sites import Site, read_site, site_names, write_site
from pipeline.errors import SettingsError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANLOOM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_site_is_kept_for_its_owner_only_and_read_back(home: Path) -> None:
    site = Site(input=Path("/data/Meier Anna"), workspace=Path("/data/w"), config="smoke", set=("seed=2",))
    path = write_site("nightly", site)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_site("nightly") == site
    assert site_names() == ["nightly"]
    assert site.options(("seed=3",), "cpu").overrides == ("seed=2", "seed=3")


def test_a_site_that_others_may_read_is_refused() -> None:
    path = write_site("nightly", Site(input=Path("/a"), workspace=Path("/b")))
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="mode 644"):
        read_site("nightly")


@pytest.mark.parametrize("name", ["/data/Meier", "Meier Anna", "", "../x", "a" * 41])
def test_no_path_and_no_person_can_be_the_name_of_a_site(name: str) -> None:
    with pytest.raises(SettingsError, match="no such name"):
        write_site(name, Site(input=Path("/a"), workspace=Path("/b")))


def test_an_unknown_and_a_broken_site_say_what_to_do(home: Path) -> None:
    with pytest.raises(SettingsError, match="scanloom site add"):
        read_site("nightly")
    path = write_site("nightly", Site(input=Path("/a"), workspace=Path("/b")))
    path.write_text("input: /a\nworkspce: /b\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="not valid"):
        read_site("nightly")


def test_the_example_is_valid_and_names_flows_that_exist() -> None:
    entries = read_deployments(TEMPLATE)
    assert {entry.entrypoint for entry in entries} <= set(FLOWS.values())
    assert any(NEW_DATA in entry.tags for entry in entries)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"parameters": {"site": "/data/Meier"}}, "never a path"),
        ({"parameters": {}}, "never a path"),
        ({"entrypoint": "os.system"}, "entrypoint"),
        ({"schedules": [{"cron": "0 2 * * *", "interval": 60}]}, "either cron or interval"),
        ({"concurrency_limit": 1}, "concurrency_limit"),
        ({"schedule": {}}, "schedule"),
    ],
)
def test_a_wrong_deployment_is_refused_before_a_server_is_asked(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    entry = {"name": "n", "entrypoint": FLOWS["augment"], "parameters": {"site": "nightly"}} | change
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": [entry]}), encoding="utf-8")
    with pytest.raises(SettingsError, match=complaint):
        read_deployments(path)


def test_options_make_the_deployment_of_a_site() -> None:
    entry = quick_deployment(
        "nightly", "ingest", cron="0 2 * * *", timezone="Europe/Berlin", interval_minutes=None, new_data=True
    )
    assert (entry.entrypoint, entry.tags, entry.parameters) == (FLOWS["ingest"], (NEW_DATA,), {"site": "nightly"})
    assert entry.schedules[0].timezone == "Europe/Berlin"
    with pytest.raises(SettingsError, match="flows: ingest"):
        quick_deployment("nightly", "xyz", cron=None, timezone=None, interval_minutes=5, new_data=False)
