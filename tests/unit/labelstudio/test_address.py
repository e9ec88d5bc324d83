"""Address and token of the settings."""

import pytest

from maskloop.errors import ConfigurationError
from maskloop_studio.labelstudio.address import check_address, check_token, origin_of


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        pytest.param("http://host:8080", "http://host:8080", id="plain"),
        pytest.param(" https://host/ls/ \n", "https://host/ls", id="blanks and a slash"),
        pytest.param("http://[::1]:8080/", "http://[::1]:8080", id="IPv6"),
    ],
)
def test_check_address_usable_is_returned_without_slash(url, checked):
    assert check_address(url) == checked


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("localhost:8080", "write http://localhost:8080", id="no scheme"),
        pytest.param("//host:8080", "write http://host:8080", id="slashes alone"),
        pytest.param("ftp://host", "scheme 'ftp'", id="another scheme"),
        pytest.param("http://", "without a host", id="no host"),
        pytest.param("http://me:hidden@host", "user and password", id="credentials"),
        pytest.param("http://host/?a=1", "query or fragment", id="query"),
        pytest.param("http://host:99999", "correct the host", id="port out of range"),
        pytest.param("http://ho st", "correct the host", id="blank in the host"),
    ],
)
def test_check_address_unusable_names_the_setting(url, words):
    with pytest.raises(ConfigurationError, match="setting LABEL_STUDIO_URL") as caught:
        check_address(url)
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_check_token_loses_the_blanks_around_it():
    assert check_token(" abc\r\n") == "abc"


@pytest.mark.parametrize("token", ["", " \n", "Token abc", "a\nb", "abcé", "a\x00b"], ids=repr)
def test_check_token_unusable_names_the_setting_only(token):
    with pytest.raises(ConfigurationError, match="setting LABEL_STUDIO_API_KEY") as caught:
        check_token(token)
    assert not token.strip() or token.strip() not in str(caught.value)


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
def test_origin_of_has_one_spelling(url, origin):
    assert origin_of(url) == origin
