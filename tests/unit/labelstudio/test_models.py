"""Webhooks of older and newer versions of Label Studio."""

import pytest

from maskloop_studio.labelstudio.models import to_webhook

OLD = {
    "id": 3,
    "project": 7,
    "url": "http://us/webhook",
    "headers": {"A": "b"},
    "is_active": True,
    "actions": [],
    "send_payload": True,
    "send_for_all_actions": True,
}


@pytest.mark.parametrize(
    ("changes", "project_id", "is_active", "failures"),
    [
        pytest.param({}, 7, True, None, id="1.23"),
        pytest.param({"consecutive_failures": 50, "is_active": False}, 7, False, 50, id="switched off"),
        pytest.param({"consecutive_failures": None}, 7, True, None, id="counter null"),
        pytest.param({"project": {"id": 7, "title": "seven"}}, 7, True, None, id="project an object"),
        pytest.param({"project": None, "headers": None}, None, True, None, id="of the organization"),
    ],
)
def test_to_webhook_every_version_is_understood(changes, project_id, is_active, failures):
    hook = to_webhook(OLD | changes)
    assert (hook.project_id, hook.is_active, hook.consecutive_failures) == (project_id, is_active, failures)
