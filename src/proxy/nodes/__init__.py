"""The site's nodes and the rest of its configuration, as ITH sends them (protocol.md 6).

Everything here is a value or a pure function: read a configuration, apply a change, find the runs
that a change affects. Other packages fetch and keep the configuration, and act on changes.
"""

from proxy.nodes.changes import Effect, affected, apply_change
from proxy.nodes.configuration import (
    ConfigMerged,
    Configuration,
    ConfigurationInvalid,
    ConfigurationRead,
    SiteConfig,
    decode_configuration,
    encode_configuration,
    merge_config,
    read_configuration,
)
from proxy.nodes.node import NewScans, Node, Permission, Repush
from proxy.nodes.reading import NodeInvalid, NodesRead, Problem, read_node, read_nodes

__all__ = [
    "ConfigMerged",
    "Configuration",
    "ConfigurationInvalid",
    "ConfigurationRead",
    "Effect",
    "NewScans",
    "Node",
    "NodeInvalid",
    "NodesRead",
    "Permission",
    "Problem",
    "Repush",
    "SiteConfig",
    "affected",
    "apply_change",
    "decode_configuration",
    "encode_configuration",
    "merge_config",
    "read_configuration",
    "read_node",
    "read_nodes",
]
