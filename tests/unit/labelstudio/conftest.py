"""A Label Studio of a few pages below the sub-path /ls, on a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.fakes.http_host import HttpHost, Page, Seen, run_host
from tests.fakes.tls import server_context, write_authority

from maskloop_studio.labelstudio.client import StudioClient

LEGACY = "0123456789abcdef" * 2 + "01234567"
PERSONAL = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.c2ln"
JSON = {"Content-Type": "application/json"}


def json_page(body: object, status: int = 200, **headers: str) -> Page:
    """Return an answer in JSON."""
    return status, JSON | headers, json.dumps(body).encode()


def add_studio_pages(host: HttpHost, *, access_tokens: list[str] | None = None) -> None:
    """Answer like Label Studio below /ls: whoami needs a token, and a personal one is exchanged.

    Args:
        host: the server.
        access_tokens: those that the exchange gives, in order; the last one is the valid one.
    """
    tokens = access_tokens or ["fresh"]
    left = list(tokens)

    def exchange(request: Seen) -> Page:
        if json.loads(request.body) != {"refresh": PERSONAL}:
            return json_page({"detail": "Token is invalid"}, 401)
        return json_page({"access": left.pop(0) if left else tokens[-1]})

    def whoami(request: Seen) -> Page:
        if request.authorization not in (f"Token {LEGACY}", f"Bearer {tokens[-1]}"):
            return json_page({"detail": "Invalid token."}, 401)
        return json_page({"id": 1, "email": "a@example.com"})

    host.pages["/ls/api/token/refresh/"] = exchange
    host.pages["/ls/api/current-user/whoami"] = whoami


@pytest.fixture
def host() -> Iterator[HttpHost]:
    """The server."""
    with run_host() as running:
        add_studio_pages(running)
        yield running


@pytest.fixture
def client(host: HttpHost) -> Iterator[StudioClient]:
    """Its API, with a legacy token."""
    made = StudioClient(f"{host.url}/ls/", LEGACY)
    yield made
    made.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that no machine knows."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate."""
    return write_authority(authority, tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tls_host(authority: trustme.CA) -> Iterator[HttpHost]:
    """The server over TLS, with a certificate of that authority."""
    with run_host(server_context(authority, "localhost"), name="localhost") as running:
        add_studio_pages(running)
        yield running
