"""Metrics in Prometheus' format for /metrics. One registry per server, so that two in one process do not collide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litgpt_core.serving.job import Job
    from litgpt_core.serving.models import ModelPool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """Counters of one server."""

    def __init__(self, pool: ModelPool) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "light_compute_requests",
            "Requested choices, by outcome.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.prompt_tokens = Counter("light_compute_prompt_tokens", "Prompt tokens.", ["model"], registry=self.registry)
        self.reused_tokens = Counter(
            "light_compute_prompt_tokens_reused",
            "Prompt tokens that were in the cache already, from an earlier turn.",
            ["model"],
            registry=self.registry,
        )
        self.new_tokens = Counter("light_compute_new_tokens", "Generated tokens.", ["model"], registry=self.registry)
        self.drafted_tokens = Counter(
            "light_compute_drafted_tokens",
            "Tokens verified by speculative decoding.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "light_compute_first_token_seconds",
            "From request to first token.",
            ["model"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.total = Histogram(
            "light_compute_answer_seconds", "From request to end.", ["model"], registry=self.registry, buckets=_SECONDS
        )
        self.registry.register(_Gauges(pool))

    def count(self, job: Job, *, model: str, now: float) -> None:
        """Count a job that has ended."""
        if job.finish_reason in ("stop", "length"):
            outcome = str(job.finish_reason)
        else:
            outcome = "error" if job.error is not None else "cancelled"
        self.requests.labels(model, outcome).inc()
        self.prompt_tokens.labels(model).inc(len(job.request.prompt_ids))
        self.reused_tokens.labels(model).inc(job.reused_tokens)
        self.new_tokens.labels(model).inc(job.new_tokens)
        self.drafted_tokens.labels(model, "accepted").inc(job.accepted_tokens)
        self.drafted_tokens.labels(model, "rejected").inc(job.drafted_tokens - job.accepted_tokens)
        if job.first_token is not None:
            self.first_token.labels(model).observe(job.first_token - job.submitted_at)
        self.total.labels(model).observe(now - job.submitted_at)

    def refused(self, *, model: str, reason: str) -> None:
        """Count a request that was refused before it became a job."""
        self.requests.labels(model, reason).inc()

    def text(self) -> bytes:
        """The response body of /metrics."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """The current state."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = GaugeMetricFamily("light_compute_running", "Running sequences.", labels=["model"])
        waiting = GaugeMetricFamily("light_compute_waiting", "Requests waiting for a slot.", labels=["model"])
        for name, model in list(self._pool.loaded.items()):
            running.add_metric([name], model.worker.running)
            waiting.add_metric([name], model.worker.waiting)
        yield running
        yield waiting
        yield GaugeMetricFamily("light_compute_models_loaded", "Models in memory.", value=len(self._pool.loaded))
