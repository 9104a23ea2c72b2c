# The exporter, and every other command of auditstore, in one image.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY auditstore ./auditstore
COPY exporters ./exporters
COPY migrations ./migrations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/auditstore \
    && /opt/auditstore/bin/pip install --no-cache-dir "$(ls /wheels/auditstore-*.whl)[exporter,leadconduit]"

FROM python:3.12-slim
RUN useradd --system --user-group --create-home --uid 10000 auditstore
COPY --from=build /opt/auditstore /opt/auditstore
# Metrics and health, inside the container only; 0.0.0.0:9464 shows them to Prometheus.
ENV PATH=/opt/auditstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AUDITSTORE_METRICS_LISTEN=127.0.0.1:9464
USER auditstore
WORKDIR /home/auditstore
STOPSIGNAL SIGTERM
# Alive, not ready: what orchestrators restart is mended by that, a bucket that says no is not.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz')"]
CMD ["auditstore", "export", "run"]
