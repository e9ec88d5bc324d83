"""A promotion or rollback by hand is told as a notice, once, with who and why."""

import pytest
from pydantic import SecretStr
from tests.fakes.looped_project import PROJECT, make_services

from maskloop.settings import Settings
from maskloop.store.audit import Actor, ActorKind
from maskloop_studio.projects.champion import promote_version, roll_back

NAME = f"maskloop-{PROJECT}"
ALICE = Actor(kind=ActorKind.DASHBOARD, name="alice")


@pytest.fixture
def make(tmp_path):
    made = []

    def start(**changes):
        services = make_services(Settings(home=tmp_path / "home", **changes))
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        for parent in (None, 1):
            services.registry.register(NAME, folder, labels=["a"], metrics=None, parent=parent)
        services.registry.promote(NAME, 1, reason="first")
        made.append(services)
        return services

    yield start
    for one in made:
        one.close()


def _told(services):
    found = []
    while (notice := services.store.notices.claim()) is not None:
        found.append(notice)
    return found


def test_moves_by_hand_are_told_with_who_and_why(make):
    services = make(notify_url=SecretStr("http://hooks.test/x"))
    promote_version(PROJECT, 2, services, reason="looks good", actor=ALICE)
    roll_back(PROJECT, services, actor=ALICE)
    first, second = _told(services)
    assert first.text == f"project 7: {NAME}-v2 promoted by dashboard alice: looks good"
    assert (second.kind, second.facts["version"], second.facts["before"]) == (
        "rolled_back",
        f"{NAME}-v1",
        f"{NAME}-v2",
    )


def test_moves_without_an_address_put_no_notice(make):
    services = make()
    promote_version(PROJECT, 2, services)
    assert _told(services) == []
