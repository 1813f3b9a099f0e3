# Stands in for prom/prometheus:v3.5.0; Debian's is 2.53, whose flags are the same as far as we use them.
ARG BASE_IMAGE=python-base:local
FROM ${BASE_IMAGE}
RUN apt-get update -q && apt-get install -qy --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /prometheus && chown -R nobody:nogroup /prometheus /etc/prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
