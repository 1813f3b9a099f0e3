# Stands in for redis:8.
ARG BASE_IMAGE=python-base:local
FROM ${BASE_IMAGE}
# The user is 999:999 there too: who may read a mounted file depends on it.
RUN groupadd --system --gid 999 redis && useradd --system --uid 999 --gid 999 --home-dir /data redis \
    && apt-get update -q && apt-get install -qy --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
COPY --chmod=755 as-user.sh /usr/local/bin/
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["as-user.sh", "redis", "/data"]
CMD ["redis-server"]
