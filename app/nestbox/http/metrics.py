"""All metrics of a worker, in Prometheus's text format, on a local port.

The hot path only counts in plain integers; they are turned into metrics when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tornado.web import RequestHandler

from nestbox import __version__
from nestbox.http.lag import LoopLag

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.net.transport import TransportOptions

__all__ = ["Metrics", "MetricsHandler"]

_COMMIT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics(Collector):
    """Reads what the parts of ``server`` count; ``transports`` holds the counts of connections by their kind."""

    def __init__(self, server: Server, transports: dict[str, TransportOptions]) -> None:
        self._server = server
        self._transports = transports
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        commits = Histogram(
            "nestbox_commit_seconds", "Time of a group commit", registry=self._registry, buckets=_COMMIT_BUCKETS
        )
        server.store.committer.commit_seconds = commits.observe
        self.lag = LoopLag(self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """The whole page."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: what there is becomes clear in `collect`, which must not run before the server does."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric but the histograms (see prometheus_client.registry.Collector)."""
        yield from self._connections()
        yield from self._sessions()
        yield from self._commits()
        yield from self._bus()
        yield _gauge(
            "nestbox_event_loop_lag_worst_seconds", "Longest lag of the last minute or two", {(): self.lag.worst}
        )
        yield _gauge("nestbox_build_info", "Release of this worker, in a label", {(__version__,): 1}, "version")

    def _connections(self) -> Iterator[Metric]:
        kinds = self._transports.items()
        yield _gauge("nestbox_connections", "Open connections", {(k,): t.open for k, t in kinds}, "transport")
        yield _counter(
            "nestbox_connections_opened", "Connections since start", {(k,): t.opened for k, t in kinds}, "transport"
        )
        pace = self._transports["tcp"].pace if "tcp" in self._transports else None
        if pace is not None:
            yield _gauge("nestbox_logins_waiting", "Steps of logins that wait for their turn", {(): pace.waiting})
        moved = {(k, "in"): t.bytes_in for k, t in kinds} | {(k, "out"): t.bytes_out for k, t in kinds}
        yield _counter("nestbox_bytes", "Bytes of XMPP and its framing", moved, "transport", "direction")
        yield _counter(
            "nestbox_slow_consumers",
            "Connections cut since the client did not read",
            {(k,): t.slow_consumers for k, t in kinds},
            "transport",
        )

    def _sessions(self) -> Iterator[Metric]:
        server, counts = self._server, self._server.counts
        yield _gauge("nestbox_sessions", "Bound sessions of this worker", {(): len(server.registry.sessions)})
        if server.components is not None:
            here = {(c.host,): int(c.host in server.components.here) for c in server.config.components}
            yield _gauge("nestbox_component_connected", "1 while the component is connected here", here, "component")
        received = {
            ("message",): counts.messages_in,
            ("presence",): counts.presences_in,
            ("iq",): counts.iqs_in,
        }
        yield _counter("nestbox_stanzas_received", "Stanzas from clients", received, "kind")
        yield _counter("nestbox_stanzas_sent", "Stanzas to clients", {(): counts.stanzas_out})
        logins = {
            ("accepted",): counts.logins,
            ("refused",): counts.logins_failed,
            ("resumed",): counts.resumed,
        }
        yield _counter("nestbox_logins", "Logins and resumed sessions", logins, "result")
        yield _counter(
            "nestbox_logins_delayed", "Logins that waited since others had failed", {(): counts.logins_delayed}
        )
        yield _counter(
            "nestbox_clients_slowed", "Times that a client was read no more for a moment", {(): counts.slowed}
        )
        pushes = {("accepted",): counts.pushes, ("refused",): counts.pushes_failed}
        yield _counter("nestbox_pushes", "Push notifications, by what apps' servers said", pushes, "result")
        hits = counts.limits_hit + server.bus.counts.limits_hit
        yield _counter(
            "nestbox_limits_hit",
            "Requests refused since they were over a limit",
            {(k,): n for k, n in hits.items()},
            "limit",
        )
        yield _counter("nestbox_uploads", "Files uploaded", {(): counts.uploads})
        yield _counter("nestbox_upload_bytes", "Bytes of files uploaded", {(): counts.upload_bytes})

    def _commits(self) -> Iterator[Metric]:
        committer = self._server.store.committer
        yield _counter("nestbox_commit_batches", "Group commits", {(): committer.batches})
        yield _counter("nestbox_commit_rows", "Rows committed", {(): committer.rows})
        yield _counter("nestbox_commit_rejected_rows", "Rows refused by the database", {(): committer.rejected})
        yield _counter("nestbox_commit_retries", "Commits tried again", {(): committer.retries})
        yield _gauge("nestbox_commit_waiting_rows", "Rows that wait for a commit", {(): committer.waiting_rows})
        yield _gauge("nestbox_commit_waiting_bytes", "Bytes that wait for a commit", {(): committer.waiting_bytes})

        reads = {("used",): self._server.store.replica.used, ("behind",): self._server.store.replica.behind}
        yield _counter(
            "nestbox_replica_reads", "Reads of the archive, by whether the replica could serve", reads, "replica"
        )

    def _bus(self) -> Iterator[Metric]:
        bus = self._server.bus
        messages = {("in",): bus.counts.received, ("out",): bus.counts.sent}
        yield _counter("nestbox_bus_messages", "Messages between workers", messages, "direction")
        yield _counter("nestbox_bus_undelivered", "Messages for a worker that was gone", {(): bus.counts.undelivered})
        yield _counter("nestbox_bus_gaps", "Times that messages may have been missed", {(): bus.counts.reconnects})
        yield _gauge("nestbox_bus_connected", "1 while the bus is connected", {(): int(bus.connected)})
        yield _gauge("nestbox_workers", "Workers alive", {(): len(bus.workers())})


def _fill(metric: Metric, values: dict[tuple[str, ...], float]) -> Metric:
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _counter(name: str, text: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
    return _fill(CounterMetricFamily(name, text, labels=labels), values)


def _gauge(name: str, text: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
    return _fill(GaugeMetricFamily(name, text, labels=labels), values)


class MetricsHandler(RequestHandler):
    """GET /metrics."""

    def initialize(self, metrics: Metrics) -> None:
        """Tornado's constructor."""
        self._metrics = metrics

    def get(self) -> None:
        """The page."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self._metrics.text())
