"""The URLs that this proxy requests from ITH, and the redirects that it follows. Pure.

Ids are opaque and enter a URL percent-encoded. The proxy key is sent to ITH's own origin only, and
no request goes to a host that the settings do not name.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import httpx2

from proxy.errors import BackendError, ConfigError
from proxy.model import Entity, EntityType
from proxy.settings.rules import is_loopback

PORTS = {"http": 80, "https": 443}

COLLECTIONS = {
    EntityType.SUBJECT: "subjects",
    EntityType.SESSION: "sessions",
    EntityType.SCAN: "scans",
}


class Addresses:
    """The URLs of ITH and the allowed redirects; raises :class:`ConfigError` for a bad base URL."""

    def __init__(
        self, base: str, download_hosts: tuple[str, ...] = (), *, allow_insecure: bool = False
    ) -> None:
        try:
            self.base = httpx2.URL(base.rstrip("/"))
        except httpx2.InvalidURL:
            raise ConfigError(
                "The address of ITH is malformed", hint="Set ith.url to https://…"
            ) from None
        self._hosts = tuple(pattern.lower().rstrip(".") for pattern in download_hosts)
        self._allow_insecure = allow_insecure
        if self.base.scheme not in PORTS or not self.base.host or self.base.userinfo:
            raise ConfigError(
                "The address of ITH is no http(s) address", hint="Set ith.url to https://…"
            )
        if not self._secure(self.base):
            raise ConfigError(
                "The address of ITH is plain http, which would show the proxy key to the network",
                hint="Set ith.url to https://…; for a test network, set ith.allow_insecure.",
            )

    def configuration(self) -> httpx2.URL:
        """Return the URL of this proxy's configuration (protocol.md 3, row 1)."""
        return self._url("api/v1/proxy/configuration", {})

    def download(
        self, entity: Entity, workspace_id: str, compression: dict[str, str]
    ) -> httpx2.URL:
        """Return the URL of an entity's archive (protocol.md 3, rows 4, 7 and 10)."""
        parents = {"subject_id": entity.subject_id, "session_id": entity.session_id}
        query = {name: value for name, value in parents.items() if value is not None}
        collection = COLLECTIONS[entity.type]
        path = f"api/v1/proxy/{_segment(workspace_id)}/{collection}/{_segment(entity.id)}/download"
        return self._url(path, query | compression)

    def is_own(self, url: httpx2.URL) -> bool:
        """Whether ``url`` is at ITH's own origin: scheme, host and port."""
        return _origin(url) == _origin(self.base)

    @property
    def is_local(self) -> bool:
        """Whether ITH is on this machine, as in tests and demonstrations."""
        return is_loopback(self.base.host)

    def redirected(self, url: httpx2.URL, location: str, *, elsewhere: bool) -> httpx2.URL:
        """Return the URL that ``location`` means at ``url``; other origins only if ``elsewhere``.

        Raises :class:`BackendError` if the redirect is not allowed.
        """
        try:
            target = url.join(location)
        except (httpx2.InvalidURL, ValueError):
            raise _forbidden("to a malformed address") from None
        if target.scheme not in PORTS or not target.host or target.userinfo:
            raise _forbidden("to an address that is not plain https")
        if not (self.is_own(target) or (elsewhere and self._allowed_host(target.host))):
            raise _forbidden("to a host that the settings do not allow")
        if not self._secure(target):
            raise _forbidden("from https to http")
        return target

    def _url(self, path: str, query: dict[str, str]) -> httpx2.URL:
        encoded = urlencode(query, quote_via=quote, safe="")
        return httpx2.URL(
            f"{self.base}".rstrip("/") + f"/{path}" + (f"?{encoded}" if encoded else "")
        )

    def _allowed_host(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        return host == self.base.host.lower().rstrip(".") or any(
            host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
            for pattern in self._hosts
        )

    def _secure(self, url: httpx2.URL) -> bool:
        return url.scheme == "https" or self._allow_insecure or is_loopback(url.host)


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or PORTS[url.scheme]


def _segment(id: str) -> str:
    """Encode an id as one segment of a path; "." and ".." would change the path."""
    if id in {"", ".", ".."}:
        raise BackendError(
            "An id in the order of ITH cannot be part of a web address",
            permanent=True,
            hint="Report this to the operators of ITH.",
        )
    return quote(id, safe="")


def _forbidden(where: str) -> BackendError:
    return BackendError(
        f"ITH redirected a request {where}",
        permanent=True,
        hint="If ITH keeps its archives elsewhere, name that host in ith.download_hosts.",
    )
