"""One text for Prometheus of several: each sample with the name of the replica that told it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


def merged(texts: Mapping[str, str]) -> str:
    """The texts, by the replicas' names, as one."""
    registry = CollectorRegistry()
    registry.register(_Collector(texts))
    return generate_latest(registry).decode()


class _Collector:
    """Families of several texts, each family once."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for replica, text in self._texts.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
        yield from families.values()
