"""Metrics of a run that is over: a file for the node exporter, or a push with OpenTelemetry.

There is no endpoint to be scraped: it would end with the process.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from batch_snapshot import __version__, files
from batch_snapshot.errors import install_command
from batch_snapshot.notify import notice
from batch_snapshot.notify.notice import Metric

#: Milliseconds for a push, its retries included.
PUSH_TIMEOUT = 10_000
SERVICE = "batch-snapshot"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def as_text(gauges: Sequence[Metric]) -> bytes:
    import prometheus_client as prometheus  # few runs need it

    registry = prometheus.CollectorRegistry()
    for gauge in gauges:
        metric = prometheus.Gauge(notice.PREFIX + gauge.name, gauge.help, gauge.labels, registry=registry)
        for labels, value in gauge.values.items():
            metric.labels(*labels).set(value)
    return prometheus.generate_latest(registry)


def write(path: Path, gauges: Sequence[Metric]) -> str | None:
    """Write the metrics to `path` atomically; returns an error, if any.

    Everyone can read the file, whatever the umask: the exporter runs as another user.
    """
    try:
        with files.atomic_write(path, 0o644) as file:
            file.write(as_text(gauges))
    except OSError as error:
        return (
            f"--metrics-file {path}: cannot be written ({error.strerror or error}); the run is not affected"
        )
    return None


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's standard variables ask for a push of metrics over OTLP.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporters = {one.strip() for one in environ.get("OTEL_METRICS_EXPORTER", "").split(",")} - {""}
    if exporters:
        return "otlp" in exporters
    return any(environ.get(name) for name in _ENDPOINTS)


def push(gauges: Sequence[Metric], environ: Mapping[str, str]) -> str | None:
    """Push the metrics once, and wait for the response; returns an error, if any.

    It blocks for up to ten seconds. The OTEL_* variables give endpoint and headers.
    """
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        return f"OpenTelemetry: protocol {protocol} is not supported: set {_PROTOCOLS[0]}=http/protobuf"
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # an extra
            OTLPMetricExporter,
        )
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        return (
            f"OpenTelemetry: the environment asks for metrics; {install_command('otel')}, "
            "or set OTEL_METRICS_EXPORTER=none"
        )
    # The exporter logs each try; one warning at the end is enough.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource)
    exporter = OTLPMetricExporter()
    try:
        meter = provider.get_meter(SERVICE, __version__)
        for gauge in gauges:
            metric = meter.create_gauge(notice.PREFIX + gauge.name, description=gauge.help)
            for labels, value in gauge.values.items():
                metric.set(value, dict(zip(gauge.labels, labels, strict=True)))
        data = reader.get_metrics_data()
        if data is None or exporter.export(data, PUSH_TIMEOUT) is MetricExportResult.SUCCESS:
            return None
        return "OpenTelemetry: the metrics were not accepted; the run is not affected"
    finally:
        exporter.shutdown()
        provider.shutdown()
