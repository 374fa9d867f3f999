# The program and what it needs, from the lock file: every package is checked against its hash.
#
#   docker build -t batch-snapshot .
#   docker run --rm -v snapshots:/data -v "$PWD/manifests:/manifests:ro" batch-snapshot \
#     run /manifests/demo.yaml --simulate
#
# /data holds ledgers and state: give it a volume that outlives the container.
#
# Coordinator, scheduler and workers of a Dask cluster are all this image. Without Dask it is smaller:
# --build-arg EXTRAS=otel
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock ./
# The lock file holds the tools of development too; they stay in this stage.
# Of each package /wheels holds one version, the locked one.
# hadolint ignore=DL3013
RUN pip download --no-cache-dir --require-hashes --only-binary :all: --dest /wheels -r requirements.lock \
    && pip install --no-cache-dir --no-index --find-links /wheels hatchling
ARG EXTRAS=dask,otel
COPY pyproject.toml README.md LICENSE ./
COPY batch_snapshot ./batch_snapshot
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv /opt/batch-snapshot \
    && /opt/batch-snapshot/bin/pip install --no-cache-dir --no-index --find-links /wheels "batch-snapshot[${EXTRAS}]"

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
