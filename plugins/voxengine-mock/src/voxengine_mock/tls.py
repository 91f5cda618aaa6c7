"""TLS for loopback: an authority made on the spot, which nobody trusts who was not told to."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import attrs

from voxengine.errors import ConfigError

__all__ = ["Authority", "make_authority"]


@attrs.frozen
class Authority:
    """A server's side of TLS, and the certificate that a client has to trust."""

    context: ssl.SSLContext
    certificate: bytes
    """The authority's, in PEM."""


def make_authority(host: str, alpn: Sequence[str]) -> Authority:
    """Make an authority and a certificate for this machine's loopback names and ``host``. Takes milliseconds.

    Raises:
        ConfigError: The extra ``tls`` is not installed.
    """
    try:
        import trustme
    except ImportError:
        raise ConfigError("TLS needs the package trustme. Try: pip install 'voxengine-mock[tls]'") from None
    authority = trustme.CA(organization_name="VoxEngine emulator")
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(list(alpn))
    return Authority(context, authority.cert_pem.bytes())
