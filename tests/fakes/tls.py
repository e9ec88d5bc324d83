"""A certificate authority of a test session, and servers that it signed."""

import ssl
from pathlib import Path

import trustme

__all__ = ["server_context", "write_authority"]


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Return what a server needs to prove that it has a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def write_authority(authority: trustme.CA, folder: Path) -> Path:
    """Write the authority's certificate and return its file."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
