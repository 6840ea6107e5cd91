"""The meaning of an HTTP answer for the operator, and for another attempt."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2

from proxy.backend.fetch import ASK_LATER, Interrupted
from proxy.errors import BackendError

LATER = frozenset({408, 425, 429})
"""The temporary refusals among the 4xx (RFC 9110, RFC 8470, RFC 6585)."""

ASK_FOR_KEY = "Check the proxy key (ITH_TOKEN or ith.token_file)."
ASK_FOR_RIGHTS = "Check in ITH that this proxy is active and belongs to the right workspace."
ASK_FOR_PROXY = "Check ith.url; if the proxy was deleted in ITH, enter the key of a new one."
ASK_FOR_ENTITY = "It was deleted in ITH, or belongs to another workspace."


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
