"""``config_update``: the address of the proxy at its site (protocol.md 2.4)."""

from __future__ import annotations

from typing import Self

from msgspec import UNSET, UnsetType

from proxy.events.base import ControlMessage


class ConfigUpdate(ControlMessage, frozen=True, kw_only=True, tag="config_update"):
    """Sent once on each link; ``api_url`` is empty if the proxy offers none.

    ITH stores the values that it holds. A field that is left out stays as it is at ITH.
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
