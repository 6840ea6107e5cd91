"""The certificates that TLS connections to ITH trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import truststore

from proxy.errors import ConfigError


def system_trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """Trust the certificates this machine trusts, and those in ``ca_file`` (PEM) besides.

    TLS 1.2 is the lowest version (BCP 195). There is no way to switch verification off. Raises
    :class:`ConfigError` if ``ca_file`` cannot be used.
    """
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError:
            raise ConfigError(
                "The file of additional certificates cannot be used",
                hint="ith.ca_file must name a readable file of certificates in PEM format.",
            ) from None
    return context
