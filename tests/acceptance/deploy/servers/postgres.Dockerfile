# Stands in for postgres:17.
ARG BASE_IMAGE=python-base:local
FROM ${BASE_IMAGE}
# The user is 999:999 there too: who may read a mounted file depends on it. Debian would make a cluster of its own.
RUN groupadd --system --gid 999 postgres \
    && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
    && mkdir /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get update -q && apt-get install -qy --no-install-recommends postgresql-17 && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
RUN mkdir -p "$PGDATA" && chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql
COPY --chmod=755 as-user.sh postgres.sh /usr/local/bin/
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# Fast: the usual signal would wait until every client has gone.
STOPSIGNAL SIGINT
ENTRYPOINT ["as-user.sh", "postgres", "/var/lib/postgresql/data", "postgres.sh"]
CMD ["postgres", "-c", "listen_addresses=*"]
