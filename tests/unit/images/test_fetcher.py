"""Fetching images: which requests carry the token, which hosts are reached, what is bounded."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.fakes.http_host import HttpHost, run_host

from maskloop.errors import ImageError
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop_studio.images import download
from maskloop_studio.images.fetcher import ImageFetcher

TOKEN = "0123456789abcdef" * 2 + "01234567"
PERSONAL = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.c2ln"


@pytest.fixture
def make_host() -> Iterator[Callable[[], HttpHost]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(run_host())


@pytest.fixture
def studio(make_host: Callable[[], HttpHost]) -> HttpHost:
    return make_host()


def make_fetcher(
    host: HttpHost,
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


def test_fetch_studio_path_sends_token(studio: HttpHost) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert studio.authorized == [("/data/upload/1/a.png", f"Token {TOKEN}")]


def test_fetch_personal_token_is_exchanged_once(studio: HttpHost) -> None:
    studio.pages["/api/token/refresh/"] = (200, {}, b'{"access": "fresh"}')
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, key=PERSONAL) as fetcher:
        fetcher.fetch("/data/upload/1/a.png")
        fetcher.fetch("/data/upload/1/a.png")
    assert [token for path, token in studio.authorized if path == "/data/upload/1/a.png"] == [
        "Bearer fresh"
    ] * 2
    assert [path for path, _ in studio.authorized].count("/api/token/refresh/") == 1


def test_fetch_personal_token_run_out_is_renewed(studio: HttpHost) -> None:
    tokens = iter(["old", "new"])
    accepted = ["old"]
    studio.pages["/api/token/refresh/"] = lambda _: (200, {}, b'{"access": "%s"}' % next(tokens).encode())
    studio.pages["/data/upload/1/a.png"] = lambda request: (
        (200, {}, b"image") if request.authorization == f"Bearer {accepted[0]}" else (401, {}, b"")
    )
    with make_fetcher(studio, key=PERSONAL) as fetcher:
        fetcher.fetch("/data/upload/1/a.png")
        accepted[0] = "new"
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert studio.paths.count("/api/token/refresh/") == 2


def test_fetch_personal_token_refused_is_an_image_error(studio: HttpHost) -> None:
    studio.pages["/api/token/refresh/"] = (401, {}, b'{"detail": "Token is invalid"}')
    with (
        make_fetcher(studio, key=PERSONAL) as fetcher,
        pytest.raises(ImageError, match="set LABEL_STUDIO_API_KEY to a valid token"),
    ):
        fetcher.fetch("/data/upload/1/a.png")


def test_fetch_foreign_host_gets_no_token(studio: HttpHost, make_host: Callable[[], HttpHost]) -> None:
    other = make_host()
    other.pages["/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, private=True) as fetcher:
        assert fetcher.fetch(f"{other.url}/a.png") == b"image"
    assert other.authorized == [("/a.png", None)]


def test_fetch_redirect_elsewhere_drops_token(studio: HttpHost, make_host: Callable[[], HttpHost]) -> None:
    other = make_host()
    other.pages["/signed.png"] = (200, {}, b"image")
    studio.pages["/data/upload/1/a.png"] = (302, {"Location": f"{other.url}/signed.png"}, b"")
    with make_fetcher(studio, private=True) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert other.authorized == [("/signed.png", None)]


def test_fetch_redirect_to_private_host_is_refused(
    studio: HttpHost, make_host: Callable[[], HttpHost]
) -> None:
    other = make_host()
    studio.pages["/data/upload/1/a.png"] = (302, {"Location": f"{other.url}/inside"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="public address, got 127"):
        fetcher.fetch("/data/upload/1/a.png")
    assert other.authorized == []


def test_fetch_redirects_in_a_circle_end(studio: HttpHost) -> None:
    studio.pages["/data/upload/1/a.png"] = (302, {"Location": "/data/upload/1/a.png"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="at most 3 redirects"):
        fetcher.fetch("/data/upload/1/a.png")
    assert len(studio.authorized) == 4


def test_fetch_login_page_names_the_token(studio: HttpHost) -> None:
    studio.pages["/data/upload/1/a.png"] = (302, {"Location": "/user/login/?next=/data/upload/1/a.png"}, b"")
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match="set LABEL_STUDIO_API_KEY"):
        fetcher.fetch("/data/upload/1/a.png")


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "11"}, {}], ids=["announced too long", "too long without saying"]
)
def test_fetch_too_many_bytes_is_refused(studio: HttpHost, headers: dict[str, str]) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, headers, b"x" * 11)
    with (
        make_fetcher(studio, max_image_bytes=10) as fetcher,
        pytest.raises(ImageError, match="at most 10 bytes"),
    ):
        fetcher.fetch("/data/upload/1/a.png")


@pytest.mark.parametrize("uri", ["s3://bucket/a b.png", "gs://bucket/ä.png", "azure-blob://box/a.png"])
def test_fetch_storage_address_is_resolved_by_studio(studio: HttpHost, uri: str) -> None:
    encoded = quote(base64.b64encode(uri.encode()).decode(), safe="")
    studio.pages[f"/tasks/7/resolve/?fileuri={encoded}"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch(uri, task_id=7) == b"image"
        with pytest.raises(ImageError, match="got no task"):
            fetcher.fetch(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/\ud800.png", "http://h/\ud800.png", "/data/\ud800.png"])
def test_fetch_address_that_is_no_unicode_is_refused(studio: HttpHost, uri: str) -> None:
    with make_fetcher(studio, private=True) as fetcher, pytest.raises(ImageError, match="correct the"):
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
        ("data:image/png;base64,%%%", "base64"),
        ("data:image/png;base64,\ud800", "base64"),
        ("http://h\ud800/a.png", "image"),
    ],
)
def test_fetch_bad_address_is_refused(studio: HttpHost, uri: str, words: str) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch(uri)
    assert words in str(caught.value)
    assert studio.authorized == []


def test_fetch_data_uri_is_decoded_within_bounds(studio: HttpHost) -> None:
    uri = "data:image/png;base64," + base64.b64encode(b"x" * 30).decode()
    with make_fetcher(studio, max_image_bytes=30) as fetcher:
        assert fetcher.fetch(uri) == b"x" * 30
    with (
        make_fetcher(studio, max_image_bytes=20) as fetcher,
        pytest.raises(ImageError, match="at most 20 bytes"),
    ):
        fetcher.fetch(uri)


def test_fetch_many_one_bad_leaves_the_rest(studio: HttpHost) -> None:
    studio.pages |= {f"/data/upload/{name}.png": (200, {}, name.encode()) for name in "abc"}
    with make_fetcher(studio) as fetcher:
        answers = fetcher.fetch_many(
            ["/data/upload/a.png", "/data/upload/gone.png", "/data/upload/b.png", "/data/upload/c.png"]
        )
    assert [answers[0], *answers[2:]] == [b"a", b"b", b"c"]
    assert isinstance(answers[1], ImageError)
    assert "status 404" in str(answers[1])


def test_fetch_error_hides_query_and_token(studio: HttpHost) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch("/data/upload/1/a.png?signature=secret")
    assert "secret" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_fetch_studio_below_a_path_keeps_the_prefix(studio: HttpHost) -> None:
    studio.pages["/ls/data/upload/1/a.png"] = (200, {}, b"image")
    studio.url += "/ls"
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == fetcher.fetch("/ls/data/upload/1/a.png") == b"image"


def test_fetch_error_hides_password(studio: HttpHost) -> None:
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError) as caught:
        fetcher.fetch("http://me:hidden@127.0.0.1:1/a.png")
    assert "hidden" not in str(caught.value)


def test_fetch_private_host_allowed_by_setting(studio: HttpHost, make_host: Callable[[], HttpHost]) -> None:
    other = make_host()
    other.pages["/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, allow_private_images=True) as fetcher:
        assert fetcher.fetch(f"{other.url}/a.png") == b"image"


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("failures", [[500], [503, 502], [0], [0, 504]], ids=str)
def test_fetch_passing_trouble_is_tried_again(studio: HttpHost, failures: list[int]) -> None:
    studio.failures[:] = failures
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert len(studio.authorized) == len(failures) + 1


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("failures", "requests", "words"),
    [
        ([500] * 9, 3, "status 500"),
        ([0] * 9, 3, "RemoteProtocolError"),
        ([404] * 9, 1, "status 404"),
        ([403] * 9, 1, "valid token"),
        ([429] * 9, 3, "status 429"),
        ([503, 410] * 9, 2, "status 410"),
    ],
    ids=str,
)
def test_fetch_lasting_trouble_is_an_error(
    studio: HttpHost, failures: list[int], requests: int, words: str
) -> None:
    studio.failures[:] = failures
    with make_fetcher(studio) as fetcher, pytest.raises(ImageError, match=words):
        fetcher.fetch("/data/upload/1/a.png")
    assert len(studio.authorized) == requests


def test_fetch_slow_host_ends_within_the_timeout(studio: HttpHost) -> None:
    studio.delay_s = 60
    started = time.monotonic()
    with (
        make_fetcher(studio, image_timeout_s=0.3) as fetcher,
        pytest.raises(ImageError, match=r"within 0\.3 s, got a timeout"),
    ):
        fetcher.fetch("/data/upload/1/a.png")
    assert time.monotonic() - started < 20


@pytest.mark.usefixtures("no_pause")
def test_fetch_slow_once_is_tried_again(studio: HttpHost) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    studio.delay_s, studio.slow_answers = 60, 1
    with make_fetcher(studio, image_timeout_s=4) as fetcher:
        assert fetcher.fetch("/data/upload/1/a.png") == b"image"
    assert len(studio.authorized) == 2


def test_fetch_many_hundred_are_fetched_at_once(studio: HttpHost) -> None:
    uris = [f"/data/upload/{number}.png" for number in range(100)]
    studio.pages |= {uri: (200, {}, uri.encode()) for uri in uris}
    studio.delay_s = 0.05
    with make_fetcher(studio) as fetcher:
        answers = fetcher.fetch_many(uris)
    assert answers == [uri.encode() for uri in uris]
    assert 8 <= studio.most_at_once <= 16


@pytest.mark.parametrize(
    ("path", "requests"),
    [
        ("/data/upload/1/a.png", 1),
        ("/data/local-files/?d=a.png", 2),
        ("/data/upload/1/a.png?x=1", 2),
    ],
)
def test_fetch_twice_requests_uploads_once(
    studio: HttpHost, tmp_path: Path, path: str, requests: int
) -> None:
    for served in (path, "/data/upload/1/a.png"):
        studio.pages[served] = (200, {}, b"image")
    with make_fetcher(studio, cache=ImageCache(tmp_path)) as fetcher:
        assert fetcher.fetch(path) == fetcher.fetch(studio.url + path) == b"image"
    assert len(studio.authorized) == requests


def test_fetch_foreign_upload_path_is_not_remembered(
    studio: HttpHost, make_host: Callable[[], HttpHost], tmp_path: Path
) -> None:
    other = make_host()
    other.pages["/data/upload/1/a.png"] = (200, {}, b"image")
    with make_fetcher(studio, private=True, cache=ImageCache(tmp_path)) as fetcher:
        fetcher.fetch(f"{other.url}/data/upload/1/a.png")
        fetcher.fetch(f"{other.url}/data/upload/1/a.png")
    assert len(other.authorized) == 2


def test_fetch_remembered_image_larger_than_the_limit_is_refused(studio: HttpHost, tmp_path: Path) -> None:
    studio.pages["/data/upload/1/a.png"] = (200, {}, b"x" * 11)
    with make_fetcher(studio, cache=ImageCache(tmp_path)) as fetcher:
        fetcher.fetch("/data/upload/1/a.png")
    with (
        make_fetcher(studio, cache=ImageCache(tmp_path), max_image_bytes=10) as fetcher,
        pytest.raises(ImageError, match="at most 10 bytes"),
    ):
        fetcher.fetch("/data/upload/1/a.png")
