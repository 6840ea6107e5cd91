"""``config_update``: where the proxy can be reached at its site (protocol.md 2.4)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import ControlMessage


class ConfigUpdate(ControlMessage, frozen=True, kw_only=True, tag="config_update"):
    """The first thing we say; ``api_url`` is empty where the proxy offers none."""

    ip_address: str
    port: int
    ae_title: str
    api_url: str
    proxy_version: str

    @classmethod
    def create(
        cls, *, ip_address: str, port: int, ae_title: str, proxy_version: str, api_url: str = ""
    ) -> Self:
        """Make the message; address, port and AE title are those that modalities send to."""
        return cls(
            ip_address=ip_address,
            port=port,
            ae_title=ae_title,
            api_url=api_url,
            proxy_version=proxy_version,
        )
