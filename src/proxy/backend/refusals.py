"""The meaning of an HTTP answer, or of its absence, for the operator and for another attempt."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2

from proxy.errors import BackendError

LATER = frozenset({408, 425, 429})
"""The temporary refusals among the 4xx (RFC 9110, RFC 8470, RFC 6585)."""

ASK_FOR_KEY = "Check the proxy key (ITH_TOKEN or ith.token_file)."
ASK_FOR_RIGHTS = "Check in ITH that this proxy is active and belongs to the right workspace."
ASK_FOR_PROXY = "Check ith.url; if the proxy was deleted in ITH, enter the key of a new one."
ASK_FOR_ENTITY = "It was deleted in ITH, or belongs to another workspace."
ASK_LATER = "This is tried again; if it keeps failing, ask the operators of ITH."
ASK_NETWORK = "Check this machine's network, DNS, firewall and HTTPS proxy on the way to ITH."
ASK_CERTIFICATE = (
    "If the network inspects TLS, put its certificate into the system's store or ith.ca_file."
)


class Interrupted(BackendError):
    """An attempt ended in a way that another one may cure."""

    def __init__(
        self, sentence: str, *, hint: str = ASK_LATER, retry_after: float | None = None
    ) -> None:
        super().__init__(sentence, permanent=False, hint=hint, retry_after=retry_after)


def refusal(response: httpx2.Response, what: str, *, own: bool, now: float) -> BackendError:
    """Build the error for an answer other than the expected one; its body is not read.

    ``what`` names the object of the request: ``configuration``, or an entity's type. ``own`` is
    whether ITH itself answered: a host that keeps its archives refuses an outdated redirect, which
    ITH renews. ``now`` is in UTC seconds.
    """
    status = response.status_code
    if status in LATER or not 400 <= status < 500 or not own:
        who = "ITH" if own else "The host that keeps the archives of ITH"
        return Interrupted(f"{who} answered {status}", retry_after=_retry_after(response, now))
    sentence, hint = f"ITH refused the request for the {what}", ASK_LATER
    if status == 401:
        sentence, hint = "ITH does not accept the proxy key", ASK_FOR_KEY
    elif status == 403:
        sentence, hint = f"ITH denies this proxy the {what}", ASK_FOR_RIGHTS
    elif status in {404, 410} and what == "configuration":
        sentence, hint = "ITH does not know this proxy", ASK_FOR_PROXY
    elif status in {404, 410}:
        sentence, hint = f"ITH has no such {what}", ASK_FOR_ENTITY
    return BackendError(f"{sentence} ({status})", permanent=True, hint=hint)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the HTTP library's errors into :class:`Interrupted`, without their texts."""
    try:
        yield
    except httpx2.ConnectTimeout:
        raise Interrupted("ITH cannot be reached: no answer", hint=ASK_NETWORK) from None
    except httpx2.ConnectError as error:
        if _untrusted(error):
            sentence = "The certificate of ITH is not trusted"
            raise Interrupted(sentence, hint=ASK_CERTIFICATE) from None
        raise Interrupted("ITH cannot be reached", hint=ASK_NETWORK) from None
    except httpx2.ProxyError:
        raise Interrupted("The HTTPS proxy refused the connection", hint=ASK_NETWORK) from None
    except (httpx2.TransportError, httpx2.DecodingError):
        raise Interrupted("The connection to ITH broke") from None


def _untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _retry_after(response: httpx2.Response, now: float) -> float | None:
    """Return the seconds of Retry-After, given as a number or as a date (RFC 9110 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)
