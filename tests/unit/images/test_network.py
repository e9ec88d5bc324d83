"""Deadlines and abandoned fetches: no host can keep a thread.

A fetch that its limit does not end takes a minute or more here: the bound on time only tells these apart.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from tests.fakes.http_host import HttpHost, run_host

from maskloop.errors import ImageError
from maskloop.settings import Settings
from maskloop_studio.images import network
from maskloop_studio.images.deadline import FetchLimit
from maskloop_studio.images.fetcher import ImageFetcher

LATE_S = 20.0  # after the deadline, on a machine that does much else


@pytest.fixture
def host() -> Iterator[HttpHost]:
    """A server."""
    with run_host() as running:
        yield running


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A server that accepts connections and sends nothing."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def drip(host: HttpHost, url: str) -> str:
    host.drip_s = 0.05  # 500 s for all
    host.pages["/a.png"] = (200, {}, b"x" * 10_000)
    return f"{host.url}/a.png"


def drip_headers(host: HttpHost, url: str) -> str:
    host.drip_headers = True
    return drip(host, url)


def announce_much(host: HttpHost, url: str) -> str:
    host.pages["/a.png"] = (200, {"Content-Length": "1000"}, b"x")
    host.delay_s = 60
    return f"{host.url}/a.png"


SLOW: list[Callable[[HttpHost, str], str]] = [
    pytest.param(drip, id="a byte at a time"),
    pytest.param(drip_headers, id="headers a byte at a time"),
    pytest.param(announce_much, id="answers late"),
    pytest.param(lambda _, silent: f"http://{silent}/a.png", id="silent"),
    pytest.param(lambda _, silent: f"https://{silent}/a.png", id="silent TLS handshake"),
]


def make_fetcher(**fields: object) -> ImageFetcher:
    return ImageFetcher(Settings(**fields), allow_private=True)


@pytest.mark.parametrize("slow", SLOW)
def test_fetch_slow_host_ends_with_the_timeout(
    slow: Callable[[HttpHost, str], str], host: HttpHost, silent_url: str
) -> None:
    url, started = slow(host, silent_url), time.monotonic()
    with (
        make_fetcher(image_timeout_s=0.8, image_retries=1) as fetcher,
        pytest.raises(ImageError, match=r"within 0\.8 s, got a timeout"),
    ):
        fetcher.fetch(url)
    assert time.monotonic() - started < 0.8 + LATE_S


@pytest.mark.parametrize("slow", SLOW)
def test_fetch_limit_of_the_caller_ends_it_earlier(
    slow: Callable[[HttpHost, str], str], host: HttpHost, silent_url: str
) -> None:
    url, started = slow(host, silent_url), time.monotonic()
    with make_fetcher(image_timeout_s=60) as fetcher, pytest.raises(ImageError, match="got a timeout"):
        fetcher.fetch(url, limit=FetchLimit(deadline=started + 0.5))
    assert time.monotonic() - started < 0.5 + LATE_S


@pytest.mark.parametrize("slow", SLOW)
def test_fetch_cancelled_frees_its_thread(
    slow: Callable[[HttpHost, str], str], host: HttpHost, silent_url: str
) -> None:
    url, limit = slow(host, silent_url), FetchLimit()
    with make_fetcher(image_timeout_s=60) as fetcher:
        threading.Timer(0.3, limit.cancelled.set).start()
        started = time.monotonic()
        with pytest.raises(ImageError, match="abandoned"):
            fetcher.fetch(url, limit=limit)
    assert time.monotonic() - started < 0.3 + LATE_S


def test_fetch_name_that_resolves_slowly_ends_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(network, "host_addresses", lambda *_: [done.wait(30) and "127.0.0.1"])
    started = time.monotonic()
    with make_fetcher(image_timeout_s=0.5) as fetcher, pytest.raises(ImageError, match="got a timeout"):
        fetcher.fetch("http://slow.example/a.png")
    assert time.monotonic() - started < 0.5 + LATE_S
    done.set()


def test_fetch_ahead_closed_abandons_what_is_under_way(host: HttpHost) -> None:
    slow = drip(host, "")
    with make_fetcher(image_timeout_s=60) as fetcher:
        answers = fetcher.fetch_ahead(["data:,first", *[slow] * 7])
        assert next(answers) == b"first"
        started = time.monotonic()
        answers.close()
    assert time.monotonic() - started < LATE_S
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch_")]


def test_fetch_ahead_limit_of_the_caller_cancels_all(host: HttpHost) -> None:
    slow, limit = drip(host, ""), FetchLimit()
    with make_fetcher(image_timeout_s=60) as fetcher:
        threading.Timer(0.3, limit.cancelled.set).start()
        started = time.monotonic()
        answers = fetcher.fetch_many([slow] * 4, limit=limit)
    assert time.monotonic() - started < 0.3 + LATE_S
    assert all("abandoned" in str(answer) for answer in answers)


def test_in_helper_result_that_comes_too_late_is_closed() -> None:
    near, far = socket.socketpair()
    go, limit = threading.Event(), FetchLimit(deadline=time.monotonic() + 0.1)

    def work() -> network.httpcore.NetworkStream:
        go.wait(10)
        return _Stream(near)

    with pytest.raises(network.httpcore.ConnectTimeout):
        network.in_helper(work, limit, threading.BoundedSemaphore(1))
    go.set()
    far.settimeout(5)
    assert far.recv(1) == b""
    far.close()


class _Stream(network.httpcore.NetworkStream):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def close(self) -> None:
        self._sock.close()


def test_in_helper_no_thread_free_ends_with_the_limit() -> None:
    taken = threading.BoundedSemaphore(1)
    taken.acquire()
    with pytest.raises(network.httpcore.ConnectTimeout):
        network.in_helper(lambda: pytest.fail("ran"), FetchLimit(deadline=time.monotonic() + 0.1), taken)


def test_fetch_from_label_studio_while_other_names_hang(
    host: HttpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, addresses = threading.Event(), network.host_addresses
    monkeypatch.setattr(network, "MAX_HELPERS", 4)
    monkeypatch.setattr(
        network,
        "host_addresses",
        lambda name, port: [] if name == "slow.example" and done.wait(30) else addresses(name, port),
    )
    host.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    settings = Settings(label_studio_url=host.url, image_timeout_s=0.5, image_retries=0)
    with ImageFetcher(settings) as fetcher:
        stuck = fetcher.fetch_many(["http://slow.example/a.png"] * 8)
        assert all("a timeout" in str(answer) for answer in stuck)
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    done.set()


def test_bounded_transport_connection_is_used_again() -> None:
    connected: list[object] = []
    with run_host(keep_alive=True) as host, make_fetcher() as fetcher, pytest.MonkeyPatch.context() as patch:
        host.pages["/a.png"] = (200, {"Content-Length": "1"}, b"x")
        addresses = network.host_addresses
        patch.setattr(network, "host_addresses", lambda *where: connected.append(where) or addresses(*where))
        assert [fetcher.fetch(f"{host.url}/a.png") for _ in range(3)] == [b"x"] * 3
    assert len(connected) == 1
