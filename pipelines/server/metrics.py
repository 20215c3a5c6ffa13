"""Prometheus metrics of the server, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from pipelines.server.process.messages import Load

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What is counted. Gauges are read from the worker's last report when asked for."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("replit_requests", "Answered requests", ["route", "status"], registry=registry)
        self.prompt_tokens = Counter("replit_prompt_tokens", "Prompt tokens taken in", registry=registry)
        self.cached_tokens = Counter(
            "replit_prefix_cache_hit_tokens",
            "Prompt tokens found in the prefix cache",
            registry=registry,
        )
        self.generated_tokens = Counter("replit_generated_tokens", "Tokens generated", registry=registry)
        self.drafted_tokens = Counter("replit_draft_tokens", "Guessed tokens that were checked", registry=registry)
        self.accepted_tokens = Counter(
            "replit_draft_tokens_accepted", "Guessed tokens that were right", registry=registry
        )
        self.queue_time = Histogram(
            "replit_queue_seconds", "From a request's arrival to its first pass",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "replit_time_to_first_token_seconds", "From a request's arrival to its first token",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.per_token = Histogram(
            "replit_time_per_output_token_seconds", "Between the tokens of a sequence, on average",
            buckets=_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._running = Gauge("replit_running", "Sequences that are read or written", registry=registry)
        self._waiting = Gauge("replit_queue_depth", "Sequences waiting", registry=registry)
        self._pages = Gauge("replit_cache_pages_used", "Cache pages in use", registry=registry)
        self._usage = Gauge("replit_cache_usage_ratio", "Cache pages in use, of all: 0 to 1", registry=registry)
        self._pages_total = Gauge("replit_cache_pages", "Cache pages", registry=registry)
        self._stalled = Gauge("replit_worker_stalled", "1 while sequences wait and no pass ends", registry=registry)
        self._preempted = Gauge("replit_preemptions", "Sequences put back for want of pages", registry=registry)

    def describe(self, labels: dict[str, str]) -> None:
        """Says what is served and where, once, as `replit_model_info`."""
        Info("replit_model", "What is served and where", registry=self.registry).info(labels)

    def render(self, load: Load, in_flight: int, stalled: bool = False) -> bytes:
        """The text that Prometheus reads."""
        running = load.running_of(in_flight)
        self._running.set(running)
        self._waiting.set(in_flight - running)
        self._pages.set(load.pages_used)
        self._pages_total.set(load.pages_total)
        self._usage.set(load.pages_used / load.pages_total if load.pages_total else 0.0)
        self._preempted.set(load.preempted)
        self._stalled.set(stalled)
        return generate_latest(self.registry)
