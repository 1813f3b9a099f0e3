# Stands in for rabbitmq:4-management.
ARG BASE_IMAGE=python-base:local
FROM ${BASE_IMAGE}
# The user is 999:999 there too: who may read a mounted file depends on it.
RUN groupadd --system --gid 999 rabbitmq \
    && useradd --system --uid 999 --gid 999 --home-dir /var/lib/rabbitmq rabbitmq \
    && apt-get update -q && apt-get install -qy --no-install-recommends rabbitmq-server && rm -rf /var/lib/apt/lists/*
# Debian's own commands would become another user by `su`; those they call do not.
ENV PATH=/usr/lib/rabbitmq/bin:$PATH HOME=/var/lib/rabbitmq LANG=C.UTF-8 RABBITMQ_LOGS=-
RUN rm -f /var/lib/rabbitmq/.erlang.cookie /etc/rabbitmq/rabbitmq-env.conf && mkdir -p /etc/rabbitmq/conf.d \
    && echo '[rabbitmq_management,rabbitmq_prometheus].' > /etc/rabbitmq/enabled_plugins \
    && echo 'log.console = true' > /etc/rabbitmq/conf.d/10-defaults.conf \
    && chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq
COPY --chmod=755 as-user.sh /usr/local/bin/
VOLUME /var/lib/rabbitmq
EXPOSE 5672 15672 15692
ENTRYPOINT ["as-user.sh", "rabbitmq", "/var/lib/rabbitmq"]
CMD ["rabbitmq-server"]
