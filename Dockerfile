# The program and its dependencies from the lock file. Every package is checked against its hash.
#
#   docker build -t batch-snapshot .
#   docker run --rm -v snapshots:/data -v "$PWD/manifests:/manifests:ro" batch-snapshot \
#     run /manifests/demo.yaml --simulate
#
# /data holds ledgers and state: give it a volume that outlives the container.
#
# For a Dask cluster (coordinator, scheduler and workers run the same image) or for OpenTelemetry:
# --build-arg EXTRAS=dask,otel
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
ARG EXTRAS=
# The lock file for development also pins the extras. Its tools stay in this stage.
# /wheels holds one version of each package, the locked one.
# hadolint ignore=DL3013
RUN pip download --no-cache-dir --require-hashes --only-binary :all: --dest /wheels \
      -r "requirements${EXTRAS:+-dev}.lock" \
    && pip install --no-cache-dir --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY batch_snapshot ./batch_snapshot
# hadolint ignore=DL3013
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/batch-snapshot \
    && pip --python /opt/batch-snapshot/bin/python install --no-cache-dir --no-index --find-links /wheels \
      "batch-snapshot${EXTRAS:+[${EXTRAS}]}"

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 batch-snapshot \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin batch-snapshot \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data /data/ledgers /data/state
COPY --from=build /opt/batch-snapshot /opt/batch-snapshot
ENV PATH=/opt/batch-snapshot/bin:$PATH \
    BATCH_SNAPSHOT_STATE_DIR=/data/state \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["batch-snapshot"]
CMD ["--help"]
