"""A Ray cluster of three nodes on this machine, on loopback alone, for tests and benchmarks; one node can be killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when Ray is imported, here and in all that it starts: loopback alone, nothing reported to anybody.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
MEMORY = 2 << 30  # bytes that each node says it has


@contextmanager
def three_nodes(cpus: int = 1) -> Iterator[Any]:
    """Ray's own `Cluster`; nothing of it runs afterwards."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": cpus, "memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(2):
            cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(cluster: Any) -> None:
    """Ends all processes of a node that is not the head, as a power cut does."""
    cluster.remove_node(min(cluster.worker_nodes, key=lambda node: node.node_id), allow_graceful=False)
