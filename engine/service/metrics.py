"""What the service tells Prometheus, in a registry of its own.

Knows names and units; knows nothing about how anything is computed or served.
"""

from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from engine.client import EmbeddedEngine
from engine.runtime.batching import Batch

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All counters of one service."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._gauges = _Gauges()
        registry.register(self._gauges)
        self.requests = Counter(
            "engine_requests",
            "HTTP requests by path, status and the fault's code (or ok, or abandoned).",
            ("path", "status", "code"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "engine_request_seconds",
            "Seconds from a request's headers to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.reloads = Counter(
            "engine_reloads",
            "Reloads of the bundle by the fault's code (or ok, or cancelled).",
            ("code",),
            registry=registry,
        )
        self._batch_photos = Histogram(
            "engine_batch_photos",
            "Photos, and frames of clips, computed together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "engine_stage_seconds",
            "Seconds of a photo's preparation and waiting, and of a batch's computing.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )

    def batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._batch_photos.observe(len(batch))
        for seconds in batch.prepare_s:
            self._stage_seconds.labels("prepare").observe(seconds)
        for seconds in batch.queue_s:
            self._stage_seconds.labels("queue").observe(seconds)
        self._stage_seconds.labels("compute").observe(batch.compute_s)

    def watch(self, engine: EmbeddedEngine | None) -> None:
        """Read an engine's gauges whenever somebody looks; None, and there are none."""
        self._gauges.engine = engine

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self) -> None:
        self.engine: EmbeddedEngine | None = None

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        if self.engine is None:
            return
        made_of = self.engine.made_of
        yield GaugeMetricFamily(
            "engine_queue_photos",
            "Photos, and frames of clips, that wait for the device.",
            value=self.engine.waiting,
        )
        yield GaugeMetricFamily(
            "engine_queue_clips", "Clips that wait.", value=self.engine.clips_waiting
        )
        bundle = InfoMetricFamily("engine_bundle", "What answers at present.")
        bundle.add_metric(
            (),
            {
                "bundle": made_of.bundle,
                "embedder": made_of.embedder,
                "device": made_of.device,
                "version": made_of.version,
            },
        )
        yield bundle
        if made_of.device.startswith("cuda"):
            from engine.vision.device import memory_bytes

            memory = GaugeMetricFamily(
                "engine_device_memory_bytes", "Of the GPU, by whom.", labels=("held",)
            )
            for held, count in memory_bytes(made_of.device).items():
                memory.add_metric((held,), count)
            yield memory
