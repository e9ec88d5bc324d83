"""Who may see pages and who may act on them, by table."""

import pytest
from starlette.requests import Request

from maskloop_studio.dashboard.page_guard import COOKIE, HEADERS, PageGuard
from maskloop_studio.errors import ForbiddenError

LOGIN = ("ann", "secret")
COOKIE_VALUE = "c" * 43


def make_request(client="127.0.0.1", cookie=COOKIE_VALUE, **headers):
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if cookie:
        lines.append((b"cookie", f"{COOKIE}={cookie}".encode()))
    scope = {"type": "http", "method": "POST", "path": "/dashboard", "headers": lines}
    return Request(scope | {"client": (client, 5000) if client else None, "query_string": b""})


READERS = [
    pytest.param(None, "127.0.0.1", {}, True, id="this machine"),
    pytest.param(None, "::1", {}, True, id="this machine, IPv6"),
    pytest.param(None, "192.0.2.7", {}, False, id="other machine"),
    pytest.param(None, None, {}, False, id="unknown machine"),
    pytest.param(LOGIN, "192.0.2.7", {}, True, id="other machine, with login"),
    pytest.param(LOGIN, "192.0.2.7", {"sec_fetch_site": "cross-site"}, False, id="embedded by another site"),
    pytest.param(
        None,
        "127.0.0.1",
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
        True,
        id="a link on another site",
    ),
]


@pytest.mark.parametrize(("login", "client", "headers", "allowed"), READERS)
def test_check_reader_by_table(login, client, headers, allowed):
    guard, request = PageGuard(login), make_request(client, **headers)
    if allowed:
        guard.check_reader(request)
    else:
        with pytest.raises(ForbiddenError):
            guard.check_reader(request)


def test_check_action_own_form_returns_the_user():
    guard = PageGuard(LOGIN)
    assert guard.check_action(make_request(), {"token": guard.token(COOKIE_VALUE)}) == "ann"


FOREIGN = [
    pytest.param({}, {}, id="no token"),
    pytest.param({"token": ""}, {}, id="empty token"),
    pytest.param({"token": "ü" * 64}, {}, id="no ASCII"),
    pytest.param({"token": PageGuard(LOGIN).token("d" * 43)}, {}, id="token of another browser"),
    pytest.param({"token": PageGuard(("ann", "old")).token(COOKIE_VALUE)}, {}, id="token of an old password"),
    pytest.param({"token": PageGuard(LOGIN).token("")}, {"cookie": ""}, id="no cookie"),
    pytest.param(
        {"token": PageGuard(LOGIN).token(COOKIE_VALUE)}, {"sec_fetch_site": "cross-site"}, id="foreign page"
    ),
    pytest.param(
        {"token": PageGuard(LOGIN).token(COOKIE_VALUE)}, {"sec_fetch_site": "same-site"}, id="sister host"
    ),
]


@pytest.mark.parametrize(("form", "request_facts"), FOREIGN)
def test_check_action_foreign_form_is_refused(form, request_facts):
    with pytest.raises(ForbiddenError, match="a form of a page"):
        PageGuard(LOGIN).check_action(make_request(**request_facts), form)


def test_check_action_without_login_is_refused():
    guard = PageGuard(None)
    with pytest.raises(ForbiddenError, match="MASKLOOP_BASIC_AUTH_USER"):
        guard.check_action(make_request(), {"token": guard.token(COOKIE_VALUE)})


def test_policy_allows_nothing_inline_and_no_other_host():
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert set(policy.values()) <= {"'self'", "'none'"}
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
