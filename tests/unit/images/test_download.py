"""Downloads over real sockets: the token, own authorities, proxies."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.fakes.connect_proxy import run_connect_proxy
from tests.fakes.http_host import HttpHost, run_host
from tests.fakes.tls import server_context, write_authority

from maskloop.errors import ConfigurationError, ImageError
from maskloop.settings import Settings
from maskloop_studio.images import download, network
from maskloop_studio.images.fetcher import ImageFetcher

TOKEN = "0123456789abcdef" * 2 + "01234567"
PUBLIC = "93.184.216.34"  # nothing is sent there: a proxy of the test stands in its way


@pytest.fixture
def studio() -> Iterator[HttpHost]:
    """A Label Studio, by its pages."""
    with run_host() as running:
        yield running


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch, studio: HttpHost) -> HttpHost:
    """A proxy that the environment names; every name but `inside.example` is public."""
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", studio.url)
    addresses = download.host_addresses
    monkeypatch.setattr(
        download,
        "host_addresses",
        lambda host, port: (
            {"outside.example": [PUBLIC], "inside.example": ["10.0.0.1"]}.get(host) or addresses(host, port)
        ),
    )
    return studio


def make_fetcher(url: str | None, *, private: bool = False, **fields: object) -> ImageFetcher:
    settings = Settings(label_studio_url=url, label_studio_api_key=TOKEN, image_retries=0, **fields)
    return ImageFetcher(settings, allow_private=private)


@pytest.mark.parametrize(
    ("path", "with_token"),
    [
        ("/data/upload/1/a.png", True),
        ("/data/local-files/?d=a.png", True),
        ("/storage-data/uploaded/?filepath=upload/1/a.png", True),
        ("/tasks/7/resolve/?fileuri=YQ==", True),
        ("/api/projects/", False),
        ("/data/avatars/a.png", False),
        ("/static/a.png", False),
    ],
)
def test_download_token_goes_to_image_paths_only(studio: HttpHost, path: str, with_token: bool) -> None:
    studio.pages[path] = (200, {}, b"image")
    with make_fetcher(studio.url, private=True) as fetcher:
        assert fetcher.fetch(studio.url + path) == b"image"
    assert studio.authorized == [(path, f"Token {TOKEN}" if with_token else None)]


@pytest.mark.parametrize(
    "path",
    ["/data/../api/projects/", "/data/%2e%2e/api/projects/", "/data/upload/..%2f..%2fapi/", "/api/projects/",
     "/data/a.png", "/", "/data/upload/..\\api"],
)  # fmt: skip
def test_download_other_path_in_a_task_is_not_requested(studio: HttpHost, path: str) -> None:
    with (
        make_fetcher(studio.url, private=True) as fetcher,
        pytest.raises(ImageError, match="correct the address"),
    ):
        fetcher.fetch(path)
    assert studio.seen == []


def test_download_redirect_of_label_studio_to_its_api_carries_no_token(studio: HttpHost) -> None:
    studio.pages["/data/upload/1/a.png"] = (302, {"Location": "/api/projects/"}, b"")
    with make_fetcher(studio.url, private=True) as fetcher, pytest.raises(ImageError, match="status 404"):
        fetcher.fetch("/data/upload/1/a.png")
    assert studio.authorized[1] == ("/api/projects/", None)


@pytest.mark.parametrize("how", ["MASKLOOP_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("is_studio", [True, False], ids=["Label Studio", "another host"])
def test_download_own_authority_is_trusted(
    how: str, is_studio: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    path = write_authority(authority, tmp_path)
    if how == "SSL_CERT_FILE":
        monkeypatch.setenv(how, str(path))
    bundle = path if how == "MASKLOOP_CA_BUNDLE" else None
    with run_host(server_context(authority, "localhost"), name="localhost") as host:
        host.pages["/data/upload/1/a.png"] = (200, {}, b"image")
        base = host.url if is_studio else None
        with make_fetcher(base, private=True, ca_bundle=bundle) as fetcher:
            assert fetcher.fetch(f"{host.url}/data/upload/1/a.png") == b"image"


def test_download_unknown_authority_names_the_setting(tmp_path: Path) -> None:
    with (
        run_host(server_context(trustme.CA(), "localhost"), name="localhost") as host,
        make_fetcher(None, private=True) as fetcher,
        pytest.raises(ImageError, match="MASKLOOP_CA_BUNDLE"),
    ):
        fetcher.fetch(f"{host.url}/a.png")


def test_downloader_address_without_scheme_is_refused() -> None:
    unchecked = Settings().model_copy(update={"label_studio_url": "localhost:8080"})
    with pytest.raises(ConfigurationError, match="write http://localhost:8080"):
        ImageFetcher(unchecked)


def test_download_proxy_gets_the_address_that_was_checked(proxied: HttpHost) -> None:
    proxied.pages[f"http://{PUBLIC}/a.png"] = (200, {}, b"image")
    with make_fetcher(None) as fetcher:
        assert fetcher.fetch("http://outside.example/a.png") == b"image"
    assert proxied.hosts == ["outside.example"]


@pytest.mark.parametrize(
    "host",
    [
        "inside.example",
        "2130706433",
        "127.1",
        "0x7f.1",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
    ],
)
def test_download_private_host_is_refused_behind_a_proxy_too(proxied: HttpHost, host: str) -> None:
    with make_fetcher(None) as fetcher, pytest.raises(ImageError, match="public address"):
        fetcher.fetch(f"http://{host}/a.png")
    assert proxied.seen == []


def test_download_allowed_private_name_goes_to_the_proxy_as_it_is(proxied: HttpHost) -> None:
    proxied.pages["http://inside.example/a.png"] = (200, {}, b"image")
    with make_fetcher(None, private=True) as fetcher:
        assert fetcher.fetch("http://inside.example/a.png") == b"image"


def test_download_socks_proxy_is_refused_with_a_remedy(
    proxied: HttpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with make_fetcher(None) as fetcher, pytest.raises(ImageError, match=r"scheme 'socks5'.*HTTP_PROXY"):
        fetcher.fetch("http://outside.example/a.png")


def test_download_https_through_a_proxy_checks_the_name_on_the_certificate(
    proxied: HttpHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    bundle = write_authority(authority, tmp_path)
    with run_host(server_context(authority, "outside.example")) as host:
        host.pages["/a.png"] = (200, {}, b"image")
        with (
            run_connect_proxy(int(host.url.rpartition(":")[2])) as proxy,
            make_fetcher(None, ca_bundle=bundle) as fetcher,
        ):
            monkeypatch.setenv("https_proxy", proxy.url)
            assert fetcher.fetch("https://outside.example/a.png") == b"image"
    assert proxy.targets == [f"{PUBLIC}:443"]
    assert host.hosts == ["outside.example"]


def test_download_second_address_of_a_host_is_tried(
    studio: HttpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = studio.url.rpartition(":")[2]
    studio.pages["/a.png"] = (200, {}, b"image")
    monkeypatch.setattr(network, "host_addresses", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with make_fetcher(None, private=True) as fetcher:
        assert fetcher.fetch(f"http://two.example:{port}/a.png") == b"image"


def test_download_name_that_changes_its_address_is_checked_at_the_connection(
    studio: HttpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "host_addresses", lambda *_: ["127.0.0.1"])
    monkeypatch.setattr(download, "host_addresses", lambda *_: [PUBLIC])
    with make_fetcher(None) as fetcher, pytest.raises(ImageError, match=r"got 127\.0\.0\.1"):
        fetcher.fetch(f"http://rebinding.example:{studio.url.rpartition(':')[2]}/a.png")
    assert studio.seen == []


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data, 9)


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", _deflated), ("identity", bytes)],
    ids=["gzip", "x-gzip", "deflate", "identity"],
)
def test_download_encoded_body_is_decoded(
    studio: HttpHost, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    studio.pages["/a.png"] = (200, {"Content-Encoding": encoding}, encode(b"image" * 100))
    with make_fetcher(None, private=True) as fetcher:
        assert fetcher.fetch(f"{studio.url}/a.png") == b"image" * 100


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", gzip.compress(bytes(10_000_000)), "at most 1000 bytes"),
        ("deflate", _deflated(bytes(10_000_000)), "at most 1000 bytes"),
        ("gzip", b"not gzip", "Content-Encoding"),
        ("br", b"x", "Content-Encoding 'br'"),
        ("gzip, gzip", b"x", "Content-Encoding 'gzip, gzip'"),
    ],
    ids=["gzip bomb", "deflate bomb", "damaged", "brotli", "twice"],
)
def test_download_bad_encoding_is_refused(studio: HttpHost, encoding: str, body: bytes, words: str) -> None:
    studio.pages["/a.png"] = (200, {"Content-Encoding": encoding}, body)
    with (
        make_fetcher(None, private=True, max_image_bytes=1000) as fetcher,
        pytest.raises(ImageError, match=words),
    ):
        fetcher.fetch(f"{studio.url}/a.png")
