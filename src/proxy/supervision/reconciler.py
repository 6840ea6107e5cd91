"""The site's configuration: kept, changed by events at once, and reconciled with ITH, which wins.

Owned by the supervisor. The last good configuration is in the ledger, so a start needs no cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from msgspec.structs import replace

from proxy.errors import BackendError
from proxy.events.incoming import ProxyConfigChangedEvent, ProxyNodesChangedEvent
from proxy.logs import log
from proxy.machines import policy
from proxy.nodes import (
    Configuration,
    ConfigurationInvalid,
    Problem,
    apply_change,
    decode_configuration,
    encode_configuration,
    merge_config,
    read_configuration,
)
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.supervision.nodes import NodeManager
from proxy.supervision.registry import Identity, Registry
from proxy.work.services import Services

DOCUMENT = "configuration"

RETRY_SECONDS, RETRY_MAX_SECONDS = 2.0, 300.0

FRESH_SECONDS = 5.0
"""So long ITH's answer is waited for before an earlier one has to do."""

PSEUDONYMISED = "ITH says that the data of this site are pseudonymised."
PSEUDONYMS_STAY = (
    "What is delivered carries the pseudonym: this program does not restore the patient's identity."
)


class Reconciler:
    """Keeps the nodes at work equal to what ITH configured.

    Whether the proxy is active, an event and the configuration both say, and the configuration may
    lag behind, or not follow events at all. So the answer to the look that follows such an event
    does not count against it; from then on each change of the flag does. Where that look was not
    answered before the link went down, the event that takes it back may have been missed: then the
    next answer counts.
    """

    def __init__(
        self,
        services: Services,
        registry: Registry,
        nodes: NodeManager,
        *,
        on_first: Callable[[], None],
        on_active: Callable[[bool], None],
    ) -> None:
        """Call ``on_first`` once configured, ``on_active`` when ITH's flag changes."""
        self._services = services
        self._registry = registry
        self._nodes = nodes
        self._on_first = on_first
        self._on_active = on_active
        self._stale = trio.Event()
        self._answered = trio.Event()
        """Set by the answer that counts; a later look replaces it."""
        self._confirms = False
        """Whether the next answer is the one to the look that follows an event about the flag."""

    async def load(self, *, locks_known: bool = False) -> None:
        """Take up the last good configuration; its flag counts only where no locks were kept.

        An event may have given ITH's lock back after this configuration was fetched.
        """
        copy = await self._services.ledger.document(DOCUMENT)
        if copy:
            try:
                self._adopt(decode_configuration(copy), flag_counts=not locks_known)
            except ConfigurationInvalid as error:
                log("configuration.problem", level="warning", error=error)

    def welcome(self, identity: Identity) -> None:
        """Learn who we are to ITH, from its greeting."""
        self._registry.identity = identity

    def change_nodes(self, event: ProxyNodesChangedEvent) -> None:
        """Apply a change of the nodes at once, then look at what ITH has."""
        present = self._registry.configuration
        if present is not None:
            payload = event.payload
            read = apply_change(present.nodes, payload.changed_action, payload.nodes)
            _log(read.problems)
            self._adopt(replace(present, nodes=read.nodes))
        self.look()

    def change_config(self, event: ProxyConfigChangedEvent) -> None:
        """Apply a change of the proxy's own configuration at once, then look at what ITH has."""
        present = self._registry.configuration
        if present is not None:
            merged = merge_config(present.config, event.payload.new_config)
            _log(merged.problems)
            self._adopt(replace(present, config=merged.config))
        self.look()

    def change_active(self, *, is_active: bool) -> None:
        """Note what an event said of the flag, then look at what ITH has."""
        present = self._registry.configuration
        if present is not None:
            self._adopt(replace(present, is_active=is_active), flag_counts=False)
        self._confirms = True
        self.look()

    def came_online(self) -> None:
        """Look at what was missed while the link was down."""
        self._confirms = False
        self.look()

    def look(self) -> None:
        """Have ITH's configuration fetched soon."""
        self._stale.set()
        if self._answered.is_set():
            self._answered = trio.Event()

    async def configured(self) -> None:
        """Wait until the configuration is known as ITH has it now, or at least as it was.

        The copy on disk, or what was known before an outage, may be outdated: it has to do only
        where ITH does not answer.
        """
        answered = self._answered
        with trio.move_on_after(FRESH_SECONDS):
            await answered.wait()
        if self._registry.configuration is None:
            await answered.wait()

    async def follow(self) -> None:
        """Fetch ITH's configuration whenever it may have changed, and until it is had."""
        attempt = 0
        while True:
            await self._stale.wait()
            self._stale = trio.Event()
            present = self._registry.configuration
            try:
                body = await self._services.backend.configuration()
                read = read_configuration(body, present)
            except (BackendError, ConfigurationInvalid) as error:
                log("configuration.not_fetched", level="warning", error=error)
                attempt += 1
                wait = policy.full_jitter(
                    attempt, RETRY_SECONDS, RETRY_MAX_SECONDS, self._services.rng.random()
                )
                with trio.move_on_after(wait):
                    await self._stale.wait()
                self._stale.set()
            else:
                attempt = 0
                if present is not None and self._stale.is_set():
                    continue  # an event came while ITH answered: the answer may be older
                _log(read.problems)
                self._adopt(read.configuration, flag_counts=not self._confirms)
                self._confirms = False
                self._answered.set()

    def _adopt(self, configuration: Configuration, *, flag_counts: bool = True) -> None:
        """Work by this configuration from now on, and after a restart."""
        present = self._registry.configuration
        if configuration == present:
            return
        self._registry.configuration = configuration
        self._registry.identity = Identity(
            configuration.workspace_id or self._registry.identity.workspace_id,
            configuration.proxy_id,
        )
        self._services.ledger.post_document(DOCUMENT, encode_configuration(configuration))
        self._nodes.apply(present, configuration)
        marks.reached(Mark.CONFIGURATION_APPLIED)
        _log_pseudonyms(present, configuration)
        was_active = present is None or present.is_active
        if flag_counts and configuration.is_active != was_active:
            self._on_active(configuration.is_active)
        if present is None:
            self._on_first()


def _log_pseudonyms(old: Configuration | None, new: Configuration) -> None:
    """Say what it means where ITH begins to say that the site's data are pseudonymised, or ends."""
    was = old is not None and bool(old.config.enable_phi_anonymization)
    if new.config.enable_phi_anonymization and not was:
        log("configuration.pseudonymised", hint=f"{PSEUDONYMISED} {PSEUDONYMS_STAY}")
    elif was and not new.config.enable_phi_anonymization:
        log("configuration.not_pseudonymised")


def _log(problems: Sequence[Problem]) -> None:
    for problem in problems:
        log(
            "configuration.problem",
            level="warning",
            problem=problem.sentence,
            hint=problem.hint,
            node_id=problem.node_id,
        )
