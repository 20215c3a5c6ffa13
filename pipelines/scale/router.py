"""Serve's request router for the model: a prompt goes to the replica that has read its beginning.

Serve's own PrefixCacheAffinityRouter would do, but can only be imported beside vLLM or SGLang, and asks an actor for
each request. Here the order in which replicas are preferred follows from the prompt alone, for all routers alike. A
replica that has as many requests as it takes (`max_ongoing_requests`) gives way to the next.
"""

from __future__ import annotations

import random

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from pipelines.scale.affinity import by_affinity


class PrefixRouter(RequestRouter):
    """Ranks the replicas for each request."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Those to be asked first; of a rank the one with the fewest requests takes it."""
        key = pending_request.kwargs.get("key") if pending_request is not None else None
        if key is None:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        found = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[found[name]] for name in by_affinity(key, found)]
