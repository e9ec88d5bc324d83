"""Our webhooks: made, repaired, switched on again and removed."""

import httpx
import pytest
from pydantic import SecretStr

from maskloop.errors import StudioError
from maskloop_studio.labelstudio.error_map import refused_error, to_studio_error
from maskloop_studio.labelstudio.webhooks import (
    SECRET_HEADER,
    forget_deletions,
    reactivate_webhooks,
    secure_webhook,
    watch_deletions,
    webhook_headers,
)

URL = "http://backend:9090"
HEADERS = {SECRET_HEADER: "s3cret"}
WHOLE = {"is_active": True, "send_payload": True, "send_for_all_actions": True}


class WebhooksInMemory:
    """Label Studio's webhooks of one project; those of the organization may be refused."""

    def __init__(self, *webhooks, organization=None):
        self.hooks = {number: {"id": number} | hook for number, hook in enumerate(webhooks, 1)}
        self.organization = organization
        self.writes = 0

    def webhooks(self, _project_id):
        return list(self.hooks.values())

    def organization_webhooks(self):
        if self.organization is not None:
            raise self.organization
        return list(self.hooks.values())

    def create_webhook(self, **fields):
        self.writes += 1
        number = max(self.hooks, default=0) + 1
        self.hooks[number] = {"id": number} | fields
        return number

    def update_webhook(self, webhook_id, **fields):
        self.writes += 1
        self.hooks[webhook_id] |= fields

    def delete_webhook(self, webhook_id):
        self.writes += 1
        del self.hooks[webhook_id]


def hook(url=f"{URL}/webhook", headers=None, **changes):
    return {"url": url, "headers": headers} | WHOLE | changes


FOREIGN = hook("http://elsewhere/webhook", {"X-Theirs": "1"})


@pytest.mark.parametrize(
    ("before", "after", "writes"),
    [
        pytest.param([], [hook(headers=HEADERS)], 1, id="none"),
        pytest.param([hook(headers=HEADERS)], [hook(headers=HEADERS)], 0, id="right already"),
        pytest.param([hook(headers={})], [hook(headers=HEADERS)], 1, id="as Label Studio makes it"),
        pytest.param([hook(headers=None)], [hook(headers=HEADERS)], 1, id="headers null"),
        pytest.param([hook(headers=HEADERS, is_active=False)], [hook(headers=HEADERS)], 1, id="switched off"),
        pytest.param(
            [hook(headers={SECRET_HEADER: "old", "X-Mine": "1", "Authorization": "Basic eDp5"})],
            [hook(headers={"X-Mine": "1"} | HEADERS)],
            1,
            id="old secret and credentials",
        ),
        pytest.param([hook(headers=HEADERS), hook(headers={})], [hook(headers=HEADERS)], 1, id="doubled"),
        pytest.param([FOREIGN], [FOREIGN, hook(headers=HEADERS)], 1, id="another one stays"),
        pytest.param(
            [hook("http://old:9090/webhook", HEADERS)],
            [hook(headers=HEADERS)],
            2,
            id="ours at an old address",
        ),
    ],
)
def test_secure_webhook_leaves_one_with_our_headers(before, after, writes):
    client = WebhooksInMemory(*before)
    kept = secure_webhook(7, f"{URL}/", HEADERS, client)
    left = [{name: one[name] for name in hook()} for one in client.hooks.values()]
    assert (left, client.writes) == (after, writes)
    assert client.hooks[kept]["headers"][SECRET_HEADER] == "s3cret"


def test_watch_deletions_twice_makes_one_and_forget_removes_it():
    client = WebhooksInMemory()
    assert watch_deletions(URL, HEADERS, client)
    assert watch_deletions(URL, HEADERS, client)
    (made,) = client.hooks.values()
    assert (made["actions"], made["send_for_all_actions"]) == (["PROJECT_DELETED"], False)
    assert forget_deletions(HEADERS, client) == 1


def test_watch_deletions_refused_is_harmless():
    client = WebhooksInMemory(organization=refused_error("webhooks", 404, "Project not found."))
    assert watch_deletions(URL, HEADERS, client) is False
    assert forget_deletions(HEADERS, client) == 0


def test_watch_deletions_unreachable_raises():
    client = WebhooksInMemory(organization=to_studio_error("webhooks", httpx.ReadTimeout("slow")))
    with pytest.raises(StudioError):
        watch_deletions(URL, HEADERS, client)


def test_webhook_headers_carry_the_settings_secret_and_credentials(settings, store):
    changes = {
        "webhook_secret": SecretStr("chosen"),
        "basic_auth_user": "us",
        "basic_auth_password": SecretStr("pa:ss"),
    }
    headers = webhook_headers(settings.model_copy(update=changes), store)
    assert headers == {SECRET_HEADER: "chosen", "Authorization": "Basic dXM6cGE6c3M="}


def test_webhook_headers_without_settings_carry_the_kept_secret(settings, store):
    assert webhook_headers(settings, store) == {SECRET_HEADER: store.projects.webhook_secret()}


def test_reactivate_webhooks_switches_on_only_ours_and_keeps_the_actions():
    off = {"is_active": False, "consecutive_failures": 50, "actions": ["TASKS_CREATED"]}
    client = WebhooksInMemory(
        hook(headers=HEADERS, **off), hook(headers=HEADERS), hook("http://else/", {}, **off)
    )
    (before,) = reactivate_webhooks(7, HEADERS, client)
    assert (before.id, before.is_active, before.consecutive_failures) == (1, False, 50)
    assert [one["is_active"] for one in client.hooks.values()] == [True, True, False]
    assert client.hooks[1]["actions"] == ["TASKS_CREATED"]
    assert reactivate_webhooks(7, HEADERS, client) == []
