"""``config_update``: where the proxy can be reached at its site (protocol.md 2.4)."""

from __future__ import annotations

from typing import Self

from msgspec import UNSET, UnsetType

from proxy.events.base import ControlMessage


class ConfigUpdate(ControlMessage, frozen=True, kw_only=True, tag="config_update"):
    """Said once on each link; ``api_url`` is empty where the proxy offers none.

    ITH takes over what stands here. A field that is left out is none it is to change.
    """

    ip_address: str
    port: int | UnsetType = UNSET
    ae_title: str | UnsetType = UNSET
    api_url: str | UnsetType = UNSET
    proxy_version: str

    @classmethod
    def create(
        cls,
        *,
        ip_address: str,
        port: int | None,
        ae_title: str | None,
        proxy_version: str,
        api_url: str | None = "",
    ) -> Self:
        """Make the message; address, port and AE title are those that modalities send to.

        None leaves the field out.
        """
        return cls(
            ip_address=ip_address,
            port=UNSET if port is None else port,
            ae_title=UNSET if ae_title is None else ae_title,
            api_url=UNSET if api_url is None else api_url,
            proxy_version=proxy_version,
        )
