"""Both kinds of tokens, below a sub-path."""

import pytest
from tests.unit.labelstudio.conftest import LEGACY, PERSONAL, add_studio_pages, json_page

from maskloop.errors import StudioCause, StudioError
from maskloop_studio.labelstudio.client import StudioClient

REFRESH = "/ls/api/token/refresh/"
WHOAMI = "/ls/api/current-user/whoami"


def whoami(host, token):
    client = StudioClient(f"{host.url}/ls", token)
    try:
        return client.whoami().email
    finally:
        client.close()


@pytest.mark.parametrize("token", [LEGACY, PERSONAL, f"\n{PERSONAL} "], ids=["legacy", "personal", "blanks"])
def test_studio_auth_below_a_sub_path_is_accepted(host, token):
    assert whoami(host, token) == "a@example.com"


def test_studio_auth_personal_token_is_exchanged_once(host):
    client = StudioClient(f"{host.url}/ls", PERSONAL)
    for _ in range(3):
        client.whoami()
    client.close()
    assert host.authorized == [(REFRESH, None), *[(WHOAMI, "Bearer fresh")] * 3]


def test_studio_auth_access_token_that_expired_is_renewed(host):
    add_studio_pages(host, access_tokens=["old", "new"])
    client = StudioClient(f"{host.url}/ls", PERSONAL)
    with pytest.raises(StudioError):
        client.whoami()  # the exchange itself gave a token that is not accepted
    assert client.whoami().email == "a@example.com"
    client.close()
    assert [auth for path, auth in host.authorized if path == WHOAMI] == [
        "Bearer old",
        "Bearer old",
        "Bearer new",
    ]


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        pytest.param(json_page({"detail": "Token is invalid"}, 401), StudioCause.TOKEN, id="refused"),
        pytest.param(json_page({"access": None}), StudioCause.ADDRESS, id="no token in the answer"),
        pytest.param((200, {"Content-Type": "text/html"}, b"<html>"), StudioCause.ADDRESS, id="a web page"),
        pytest.param((404, {}, b"<html>"), StudioCause.ADDRESS, id="not found"),
        pytest.param((502, {}, b""), StudioCause.SERVER, id="gateway"),
    ],
)
def test_studio_auth_exchange_fails_with_the_cause(host, page, cause):
    host.pages[REFRESH] = page
    with pytest.raises(StudioError, match="exchange of the personal access token") as caught:
        whoami(host, PERSONAL)
    assert caught.value.cause is cause
    assert PERSONAL not in str(caught.value)
