"""Fetching images: who gets the token, which hosts are asked, what is bounded."""

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from maskloop.errors import ImageError
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop_studio.images import download
from maskloop_studio.images.address_guard import origin_of, pin_public
from maskloop_studio.images.fetcher import ImageFetcher

TOKEN = "0123456789abcdef" * 2 + "01234567"
PERSONAL = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.c2ln"


@dataclass
class Host:
    """A web server of the test: answers from a table, remembers what it was asked."""

    url: str = ""
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)  # first answers; 0 hangs up without one
    delay_s: float = 0.0
    slow_answers: int = 10**9  # so many are delayed
    at_once: int = 0  # requests being answered now
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _handler_for(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with host.lock:
                host.at_once += 1
                host.most_at_once = max(host.most_at_once, host.at_once)
                host.asked.append((self.path, self.headers.get("Authorization")))
                failure = host.failures.pop(0) if host.failures else None
                slow = len(host.asked) <= host.slow_answers
            time.sleep(host.delay_s if slow else 0)
            with host.lock:
                host.at_once -= 1
            if failure == 0:
                return
            status, headers, body = host.pages.get(self.path, (404, {}, b""))
            if failure is not None:
                status, headers, body = failure, {}, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    return Handler


@pytest.fixture
def make_host() -> Iterator[Callable[[], Host]]:
    servers = []

    def make() -> Host:
        host = Host()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(host))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        host.url = f"http://127.0.0.1:{server.server_address[1]}"
        return host

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def studio(make_host: Callable[[], Host]) -> Host:
    return make_host()


def make_fetcher(
    host: Host,
    *,
    key: str | None = TOKEN,
    private: bool | None = None,
    cache: ImageCache | None = None,
    **fields: object,
) -> ImageFetcher:
    settings = Settings(label_studio_url=host.url, label_studio_api_key=key, **fields)
    return ImageFetcher(settings, allow_private=private, cache=cache)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)


def test_fetch_studio_path_sends_token(studio: Host) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert studio.asked == [("/data/upload/1/a.png", f"Token {TOKEN}")]


def test_fetch_personal_token_is_exchanged_once(studio: Host) -> None:
    studio.pages["/api/token/refresh/"] = (200, {}, b'{"access": "fresh"}')
    studio.pages["/data/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, key=PERSONAL) as fetcher:
        fetcher.fetch("/data/a.png")
        fetcher.fetch("/data/a.png")
    assert [token for path, token in studio.asked if path == "/data/a.png"] == ["Bearer fresh"] * 2
    assert [path for path, _ in studio.asked].count("/api/token/refresh/") == 1


def test_fetch_personal_token_run_out_is_renewed(studio: Host) -> None:
    studio.pages["/api/token/refresh/"] = (200, {}, b'{"access": "fresh"}')
    studio.pages["/data/a.png"] = (401, {}, b"")
    with make_fetcher(studio, key=PERSONAL) as fetcher, pytest.raises(ImageError, match="valid token"):
        fetcher.fetch("/data/a.png")
    assert [path for path, _ in studio.asked].count("/api/token/refresh/") == 2


def test_fetch_foreign_host_gets_no_token(studio: Host, make_host: Callable[[], Host]) -> None:
    other = make_host()
    other.pages["/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, private=True) as fetcher:
        assert fetcher.fetch(f"{other.url}/a.png") == b"image"
    assert other.asked == [("/a.png", None)]


def test_fetch_redirect_elsewhere_drops_token(studio: Host, make_host: Callable[[], Host]) -> None:
    other = make_host()
    other.pages["/signed.png"] = (200, {}, b"image")
    studio.pages["/data/a.png"] = (302, {"Location": f"{other.url}/signed.png"}, b"")
    with make_fetcher(studio, private=True) as fetcher:
        assert fetcher.fetch("/data/a.png") == b"image"
    assert other.asked == [("/signed.png", None)]


def test_fetch_redirect_to_private_host_is_refused(studio: Host, make_host: Callable[[], Host]) -> None:
    other = make_host()
    studio.pages["/data/a.png"] = (302, {"Location": f"{other.url}/inside"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="public address, got 127"):
        fetcher.fetch("/data/a.png")
    assert other.asked == []


def test_fetch_redirects_in_a_circle_end(studio: Host) -> None:
    studio.pages["/data/a.png"] = (302, {"Location": "/data/a.png"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="at most 3 redirects"):
        fetcher.fetch("/data/a.png")
    assert len(studio.asked) == 4


def test_fetch_login_page_asks_for_a_token(studio: Host) -> None:
    studio.pages["/data/a.png"] = (302, {"Location": "/user/login/?next=/data/a.png"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="set LABEL_STUDIO_API_KEY"):
        fetcher.fetch("/data/a.png")


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "11"}, {}], ids=["announced too long", "too long without saying"]
)
def test_fetch_too_many_bytes_is_refused(studio: Host, headers: dict[str, str]) -> None:
    studio.pages["/data/a.png"] = (200, headers, b"x" * 11)
    with (
        make_fetcher(studio, max_image_bytes=10) as fetcher,
        pytest.raises(ImageError, match="at most 10 bytes"),
    ):
        fetcher.fetch("/data/a.png")


@pytest.mark.parametrize("uri", ["s3://bucket/a b.png", "gs://bucket/ä.png", "azure-blob://box/a.png"])
def test_fetch_storage_address_is_resolved_by_studio(studio: Host, uri: str) -> None:
    encoded = quote(base64.b64encode(uri.encode()).decode(), safe="")
    studio.pages[f"/tasks/7/resolve/?fileuri={encoded}"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch(uri, task_id=7) == b"image"
        with pytest.raises(ImageError, match="got no task"):
            fetcher.fetch(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/\ud800.png", "http://h/\ud800.png", "/data/\ud800.png"])
def test_fetch_address_that_is_no_unicode_is_refused(studio: Host, uri: str) -> None:
    with make_fetcher(studio, private=True) as fetcher, pytest.raises(ImageError, match="correct the task"):
        fetcher.fetch(uri, task_id=7)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://host/a.png", "scheme 'ftp'"),
        ("//host/a.png", "no scheme"),
        ("a.png", "no scheme"),
        ("", "no scheme"),
        ("http://127.0.0.1:1/a.png", "got 127.0.0.1"),
        ("http://169.254.169.254/latest/meta-data", "got 169.254.169.254"),
        ("http://[::ffff:10.0.0.1]/a.png", "public address"),
        ("http://10.1.2.3/a.png", "got 10.1.2.3"),
        ("http://host:99999/a.png", "image"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,%%%", "base64"),
        ("data:image/png;base64,\ud800", "base64"),
        ("http://h\ud800/a.png", "image"),
    ],
)
def test_fetch_bad_address_is_refused(studio: Host, uri: str, words: str) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch(uri)
    assert words in str(caught.value)
    assert studio.asked == []


def test_fetch_data_uri_is_decoded_within_bounds(studio: Host) -> None:
    uri = "data:image/png;base64," + base64.b64encode(b"x" * 30).decode()
    with make_fetcher(studio, max_image_bytes=30) as fetcher:
        assert fetcher.fetch(uri) == b"x" * 30
    with (
        make_fetcher(studio, max_image_bytes=20) as fetcher,
        pytest.raises(ImageError, match="at most 20 bytes"),
    ):
        fetcher.fetch(uri)


def test_fetch_many_one_bad_leaves_the_rest(studio: Host) -> None:
    studio.pages |= {f"/data/{name}.png": (200, {}, name.encode()) for name in "abc"}
    with make_fetcher(studio) as fetcher:
        answers = fetcher.fetch_many(["/data/a.png", "/data/gone.png", "/data/b.png", "/data/c.png"])
    assert [answers[0], *answers[2:]] == [b"a", b"b", b"c"]
    assert isinstance(answers[1], ImageError)
    assert "status 404" in str(answers[1])


def test_fetch_error_hides_query_and_token(studio: Host) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch("/data/a.png?signature=secret")
    assert "secret" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_fetch_studio_below_a_path_keeps_the_prefix(studio: Host) -> None:
    studio.pages["/ls/data/a.png"] = (200, {}, b"image")
    studio.url += "/ls"
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/a.png") == fetcher.fetch("/ls/data/a.png") == b"image"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("HTTP://Host/a", "http://host:80"),
        ("https://host:443/", "https://host:443"),
        ("http://user@host:8080/", "http://host:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("ftp://host/", ""),
        ("/data/a.png", ""),
    ],
)
def test_origin_of_spells_alike(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_fetch_error_hides_password(studio: Host) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch("http://me:hidden@127.0.0.1:1/a.png")
    assert "hidden" not in str(caught.value)


def test_fetch_private_host_allowed_by_setting(studio: Host, make_host: Callable[[], Host]) -> None:
    other = make_host()
    other.pages["/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, allow_private_images=True) as fetcher:
        assert fetcher.fetch(f"{other.url}/a.png") == b"image"


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("failures", [[500], [503, 502], [0], [0, 504]], ids=str)
def test_fetch_passing_trouble_is_tried_again(studio: Host, failures: list[int]) -> None:
    studio.failures[:] = failures
    studio.pages["/data/a.png"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/a.png") == b"image"
    assert len(studio.asked) == len(failures) + 1


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("failures", "asked", "words"),
    [
        ([500] * 9, 3, "status 500"),
        ([0] * 9, 3, "RemoteProtocolError"),
        ([404] * 9, 1, "status 404"),
        ([403] * 9, 1, "valid token"),
        ([429] * 9, 1, "status 429"),
        ([503, 410] * 9, 2, "status 410"),
    ],
    ids=str,
)
def test_fetch_lasting_trouble_is_an_error(studio: Host, failures: list[int], asked: int, words: str) -> None:
    studio.failures[:] = failures
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match=words):
        fetcher.fetch("/data/a.png")
    assert len(studio.asked) == asked


def test_fetch_slow_host_ends_within_the_timeout(studio: Host) -> None:
    studio.delay_s = 5
    started = time.monotonic()
    with (
        make_fetcher(studio, image_timeout_s=0.3) as fetcher,
        pytest.raises(ImageError, match=r"within 0\.3 s, got a timeout"),
    ):
        fetcher.fetch("/data/a.png")
    assert time.monotonic() - started < 2


@pytest.mark.usefixtures("no_pause")
def test_fetch_slow_once_is_tried_again(studio: Host) -> None:
    studio.pages["/data/a.png"] = (200, {}, b"image")
    studio.delay_s, studio.slow_answers = 5, 1
    with make_fetcher(studio, image_timeout_s=2) as fetcher:
        assert fetcher.fetch("/data/a.png") == b"image"
    assert len(studio.asked) == 2


@pytest.mark.usefixtures("no_pause")
def test_fetch_second_address_of_a_host_is_tried(
    studio: Host, make_host: Callable[[], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_host()
    other.pages["/a.png"] = (200, {}, b"image")
    port = int(other.url.rpartition(":")[2])
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    with make_fetcher(studio, private=True) as fetcher, monkeypatch.context() as patch:
        patch.setattr(download, "pin_public", lambda url, **rest: pin_with(both, url, **rest))
        assert fetcher.fetch(f"http://two.example:{port}/a.png") == b"image"


def pin_with(found: list[object], url: str, **rest: object) -> object:
    """Pin with what a look-up would have found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        return pin_public(url, **rest)


def test_fetch_many_hundred_are_fetched_at_once(studio: Host) -> None:
    uris = [f"/data/{number}.png" for number in range(100)]
    studio.pages |= {uri: (200, {}, uri.encode()) for uri in uris}
    studio.delay_s = 0.05
    with make_fetcher(studio) as fetcher:
        answers = fetcher.fetch_many(uris)
    assert answers == [uri.encode() for uri in uris]
    assert 8 <= studio.most_at_once <= 16


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/data/upload/1/a.png", 1),
        ("/data/local-files/?d=a.png", 2),
        ("/data/upload/../a.png", 2),
        ("/data/upload/1/a.png?x=1", 2),
    ],
)
def test_fetch_twice_asks_once_for_uploads_only(studio: Host, tmp_path: Path, path: str, asked: int) -> None:
    for served in (path, "/data/a.png"):
        studio.pages[served] = (200, {}, b"image")
    with make_fetcher(studio, cache=ImageCache(tmp_path)) as fetcher:
        assert fetcher.fetch(path) == fetcher.fetch(studio.url + path) == b"image"
    assert len(studio.asked) == asked


def test_fetch_foreign_upload_path_is_not_remembered(
    studio: Host, make_host: Callable[[], Host], tmp_path: Path
) -> None:
    other = make_host()
    other.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, private=True, cache=ImageCache(tmp_path)) as fetcher:
        fetcher.fetch(f"{other.url}/data/upload/1/a.png")
        fetcher.fetch(f"{other.url}/data/upload/1/a.png")
    assert len(other.asked) == 2


def test_fetch_remembered_image_larger_than_the_limit_is_refused(studio: Host, tmp_path: Path) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"x" * 11)
    with make_fetcher(studio, cache=ImageCache(tmp_path)) as fetcher:
        fetcher.fetch("/data/upload/1/a.png")
    with (
        make_fetcher(studio, cache=ImageCache(tmp_path), max_image_bytes=10) as fetcher,
        pytest.raises(ImageError, match="at most 10 bytes"),
    ):
        fetcher.fetch("/data/upload/1/a.png")
