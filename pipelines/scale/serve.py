"""The server on Ray Serve: `serve run pipelines.scale.serve:app model=nano`, or a config file of Serve's.

Two deployments: `Ingress`, one on every node, behind Serve's proxies, and `Model`, the replicas, which are scaled.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.middleware import Middleware

from pipelines.scale.arguments import options_of
from pipelines.scale.ingress import Ingress
from pipelines.scale.replica import Replica
from pipelines.scale.router import PrefixRouter
from pipelines.server.options import ServeOptions


def app(args: dict[str, Any]) -> serve.Application:
    """The application; the arguments are the server's options, as `max_length` or `api_key_file`.

    Raises UserError for others.
    """
    options = options_of(args)
    batch = options.max_batch_size
    model = serve.deployment(
        Replica,
        name="Model",
        # As many as run at once, and a few that wait in the replica; the others wait for any that has room.
        max_ongoing_requests=batch + -(-batch // 4),
        max_queued_requests=options.max_queue_size,
        autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=batch),
        request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
        ray_actor_options={"num_cpus": options.threads or 1, "num_gpus": int(options.device != "cpu")},
        health_check_period_s=1.0,
        graceful_shutdown_timeout_s=options.shutdown_timeout,
    )
    ingress = serve.deployment(
        serve.ingress()(_Ingress),
        name="Ingress",
        num_replicas=_nodes(),
        max_replicas_per_node=1,
        max_ongoing_requests=1 << 16,
        ray_actor_options={"num_cpus": 0},
    )
    return ingress.bind(model.bind(options), options)


class _Ingress:
    """A deployment that answers by the other one."""

    def __init__(self, model: DeploymentHandle, options: ServeOptions) -> None:
        self._model, self._options = model, options

    def __serve_build_asgi_app__(self) -> Starlette:
        return Starlette(middleware=[Middleware(Ingress, handle=self._model, options=self._options)])


def _nodes() -> int:
    """Nodes of the cluster as it is now."""
    return max(sum(node["Alive"] for node in ray.nodes()), 1) if ray.is_initialized() else 1
