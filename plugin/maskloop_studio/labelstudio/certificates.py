"""Which certificate authorities are trusted, by requests to Label Studio and for images alike."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx

from maskloop.errors import ConfigurationError

__all__ = ["tls_context"]


def tls_context(ca_bundle: Path | None = None) -> ssl.SSLContext:
    """Return how TLS certificates are checked.

    Args:
        ca_bundle: a PEM file, or a folder of hashed ones, of authorities that are trusted as well. The others
            are those of SSL_CERT_FILE or SSL_CERT_DIR, or else certifi's.

    Raises:
        ConfigurationError: a file that is named cannot be read, or holds no certificate.
    """
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:  # ssl.SSLError is one
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise _certificate_error(name, exc) from exc
    if ca_bundle is not None:
        try:
            if ca_bundle.is_dir():
                context.load_verify_locations(capath=ca_bundle)
            else:
                context.load_verify_locations(cafile=ca_bundle)
        except OSError as exc:
            raise _certificate_error("MASKLOOP_CA_BUNDLE", exc) from exc
    return context


def _certificate_error(name: str, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"setting {name}",
        expected="a PEM file with certificates",
        got=f"{type(exc).__name__} ({exc})",
        remedy=f"let {name} name a PEM file that this account may read, or unset it",
    )
