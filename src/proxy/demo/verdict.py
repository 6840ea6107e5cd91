"""Check from outside that the proxy carried out the dispatch and that its reports are true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proxy.demo import frames
from proxy.demo.backend import FINAL, DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode

SCHEMA = "ith-proxy/demo/1"


@dataclass
class Observed:
    """The parties of one dispatch that have records of it, and the time of the order."""

    backend: DemoBackend
    nodes: Sequence[DemoNode]
    instances: Sequence[SampleInstance]
    correlation_id: str = field(default_factory=frames.new_correlation_id)
    begun: float | None = None

    @property
    def over(self) -> bool:
        """Whether the dispatch and every node of it have a final status."""
        ids = [None, *(node.node_id for node in self.nodes)]
        return all(self.backend.final_status(self.correlation_id, each) for each in ids)

    def words(self, node_id: str | None) -> tuple[str, ...]:
        """Return the status words received for a node, or for the dispatch."""
        return self.backend.status_words(self.correlation_id, node_id)

    def seconds(self, node_id: str | None) -> float | None:
        """Return the time from the order to the final status, None if there is none."""
        for at, frame in self.backend.heard:
            payload = frame.get("payload", {})
            if (
                frame.get("correlation_id") == self.correlation_id
                and payload.get("node_id") == node_id
                and payload.get("status") in FINAL
                and self.begun is not None
            ):
                return round(at - self.begun, 3)
        return None


@dataclass(frozen=True)
class NodeVerdict:
    """One node's row; ``intact`` if it holds exactly the instances sent, byte for byte."""

    node_id: str
    ae_title: str
    instances: int
    bytes: int
    seconds: float | None
    rejections: int
    words: tuple[str, ...]
    intact: bool


@dataclass(frozen=True)
class Verdict:
    """The outcome; without ``problems`` it is good."""

    seed: int
    instances: int
    bytes: int
    seconds: float | None
    words: tuple[str, ...]
    nodes: tuple[NodeVerdict, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> frames.JsonObject:
        """Return the outcome for machines; ``status`` is the words in the order they came."""
        return {
            "schema": SCHEMA,
            "ok": not self.problems,
            "seed": self.seed,
            "instances": self.instances,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "status": [*self.words],
            "nodes": [
                {
                    "node_id": node.node_id,
                    "ae_title": node.ae_title,
                    "instances": node.instances,
                    "bytes": node.bytes,
                    "seconds": node.seconds,
                    "rejections": node.rejections,
                    "status": [*node.words],
                    "intact": node.intact,
                }
                for node in self.nodes
            ],
            "problems": [*self.problems],
        }


def judge(observed: Observed, *, seed: int) -> Verdict:
    """Compare the instances at the nodes and the messages at the backend with the order."""
    nodes = tuple(_node(observed, node) for node in observed.nodes)
    return Verdict(
        seed=seed,
        instances=len(observed.instances),
        bytes=sum(instance.data_set_size for instance in observed.instances),
        seconds=observed.seconds(None),
        words=observed.words(None),
        nodes=nodes,
        problems=tuple(_problems(observed, nodes)),
    )


def _node(observed: Observed, node: DemoNode) -> NodeVerdict:
    return NodeVerdict(
        node_id=node.node_id,
        ae_title=node.ae_title,
        instances=len(node.holds),
        bytes=node.tally.bytes,
        seconds=observed.seconds(node.node_id),
        rejections=node.tally.rejections,
        words=observed.words(node.node_id),
        intact=node.holds == {one.sop_instance_uid: one.sha256 for one in observed.instances},
    )


def _problems(observed: Observed, nodes: Sequence[NodeVerdict]) -> Iterator[str]:
    if observed.begun is None:
        yield "the proxy did not connect"
        return
    total = len(observed.instances)
    for node in nodes:
        if node.instances != total:
            yield f"{node.ae_title} holds {node.instances} of {total} instances"
        elif not node.intact:
            yield f"{node.ae_title} holds other bytes than were sent"
        yield from _told(observed, node.node_id, node.ae_title, total)
    yield from _told(observed, None, "the dispatch", total * len(nodes))


def _told(observed: Observed, node_id: str | None, who: str, total: int) -> Iterator[str]:
    """Yield the problems of the statuses of a node, or of the dispatch."""
    key = (observed.correlation_id, node_id)
    payloads = observed.backend.statuses.get(key, [])
    final = observed.backend.final_status(*key)
    if final is None:
        yield f"no final status came for {who}"
        return
    if final is not payloads[-1]:
        yield f"{who} got another status after the final one"
    if final.get("status") != "completed":
        yield f"{who} was reported as {final.get('status')}"
    elif (final.get("files_sent"), final.get("files_total")) != (total, total):
        yield f"{who} was reported with other counts than {total} of {total}"
    progress = [payload.get("progress", 0) for payload in payloads]
    if progress != sorted(progress):
        yield f"the progress of {who} went backwards"
