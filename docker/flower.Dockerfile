# Flower: pages that show workers and tasks
# Built from the project's root: docker build -f docker/flower.Dockerfile -t unstract-workers/flower .
# But for what is said of flower, all of docker/*.Dockerfile are the same, so that they share their layers.
ARG BASE_IMAGE=python:3.13-slim

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS installed
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never PYTHONHASHSEED=0
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore uv==0.13.9 && uv venv --python python3 /venv

# First what changes seldom. Its bytecode asks no file's date.
COPY docker/requirements/flower.txt /build/requirements.txt
RUN uv pip install --python /venv --require-hashes --no-deps --requirements /build/requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /venv/lib

COPY . /build
RUN uv pip install --python /venv --no-deps --target /workers /build \
    && rm /workers/*.dist-info/direct_url.json /workers/*.dist-info/uv_cache.json /workers/*.dist-info/RECORD /workers/.lock \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /workers

# Files of one date make the same layer of the same input. A folder that COPY itself makes would have today's.
RUN find /venv /workers -exec touch --no-dereference --date=@315532800 {} + \
    && mkdir /dependencies /code && mv /venv /dependencies && mv /workers /code

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
COPY --from=installed /dependencies /
COPY --from=installed /code /
ENV PATH=/workers/bin:/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/workers PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, which a cluster can see not to be root's. Nothing is written but to /tmp, by prefork's metrics alone.
USER 10001:10001
ENTRYPOINT ["python", "-P", "-m", "shared.flower"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5555/healthcheck', timeout=4)"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unstract-workers/flower" \
      org.opencontainers.image.description="Flower: pages that show workers and tasks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
