"""`data:` URIs as browsers read them."""

import base64
from urllib.parse import quote

import pytest

from maskloop.errors import ImageError
from maskloop_studio.images import data_uri
from maskloop_studio.images.data_uri import decode_data_uri

CONTENT = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param(f"data:image/png;base64,{TEXT}", id="plain"),
        pytest.param(f"data:image/png;base64, {TEXT}", id="blank first"),
        pytest.param(f"data:image/png;base64,{TEXT[:50]}\n{TEXT[50:]}\r\n", id="line breaks"),
        pytest.param(f"data:image/png;base64,{' '.join(TEXT)}", id="blanks everywhere"),
        pytest.param(f"data:image/png;base64,{quote(TEXT, safe='')}", id="percent-encoded"),
        pytest.param(f"data:image/png;base64,{TEXT[:50]}%0A%20{TEXT[50:]}", id="encoded blanks"),
        pytest.param(f"data:image/png;base64,{TEXT.rstrip('=')}", id="no padding"),
        pytest.param(f"DATA:image/png;charset=x; BASE64 ,{TEXT}", id="spelling of the header"),
        pytest.param(f"data:;base64,{TEXT}", id="no media type"),
        pytest.param(f"data:image/png;base64,{TEXT}#part", id="fragment"),
        pytest.param(f"data:image/png,{quote(CONTENT, safe='')}", id="without base64"),
        pytest.param(f"data:image/png,\n{quote(CONTENT, safe='')}\t", id="without base64, line break"),
    ],
)
def test_decode_data_uri_every_form_gives_the_content(uri):
    assert decode_data_uri(uri, max_bytes=len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,%%%", "encode the image as base64"),
        ("data:image/png;base64,a", "encode the image as base64"),
        ("data:image/png;base64,ab=c", "encode the image as base64"),
        ("data:image/png;base64,____", "encode the image as base64"),
        ("data:image/png;base64,\ud800", "encode the image as base64"),
        ("data:image/png;base64,é", "encode the image as base64"),
    ],
)
def test_decode_data_uri_undecodable_is_refused(uri, words):
    with pytest.raises(ImageError, match=words):
        decode_data_uri(uri, max_bytes=100)


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + base64.b64encode(b"x" * 101).decode(),
        "data:image/png;base64," + " " * 10_000,
        "data:image/png," + "x" * 101,
    ],
    ids=["base64", "blanks", "plain"],
)
def test_decode_data_uri_too_large_is_refused_before_it_is_decoded(uri, monkeypatch):
    monkeypatch.setattr(data_uri.base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="at most 100 bytes"):
        decode_data_uri(uri, max_bytes=100)


def test_decode_data_uri_without_content_is_empty():
    assert decode_data_uri("data:,", max_bytes=10) == b""
