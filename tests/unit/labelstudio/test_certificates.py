"""Certificates of an authority of one's own, for the API."""

import pytest
from tests.unit.labelstudio.conftest import LEGACY, PERSONAL

from maskloop.errors import ConfigurationError, StudioCause, StudioError
from maskloop.settings import Settings
from maskloop_studio.labelstudio.certificates import tls_context
from maskloop_studio.labelstudio.client import StudioClient


def whoami(host, token=LEGACY, **more):
    client = StudioClient(f"{host.url}/ls", token, **more)
    try:
        return client.whoami().email
    finally:
        client.close()


@pytest.mark.parametrize("token", [LEGACY, PERSONAL], ids=["legacy", "personal"])
def test_tls_context_ca_bundle_is_trusted(tls_host, ca_file, token):
    assert whoami(tls_host, token, ca_bundle=ca_file) == "a@example.com"


def test_tls_context_ssl_cert_file_is_trusted(tls_host, ca_file, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert whoami(tls_host) == "a@example.com"


def test_tls_context_unknown_authority_is_named(tls_host):
    with pytest.raises(StudioError, match="MASKLOOP_CA_BUNDLE") as caught:
        whoami(tls_host)
    assert caught.value.cause is StudioCause.CERTIFICATE


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "MASKLOOP_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "other content"])
def test_tls_context_unusable_file_names_its_setting(name, content, tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    if name == "SSL_CERT_FILE":
        monkeypatch.setenv(name, str(path))
    with pytest.raises(ConfigurationError, match=f"setting {name}"):
        tls_context(path if name == "MASKLOOP_CA_BUNDLE" else None)


def test_settings_empty_ca_bundle_is_none():
    assert Settings(ca_bundle="").ca_bundle is None
