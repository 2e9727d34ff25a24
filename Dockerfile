# Images of gkt: `server` (the server and its trainer, PyTorch for the CPU) and `device` (a device, portable engine).
#
#     docker build --target server --tag gkt-server .
#     docker build --target device --tag gkt-device .

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY gkt_core gkt_core
COPY edge_export edge_export
COPY edge_runtime edge_runtime
COPY server_app server_app
COPY profiling profiling
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# What both have: a user who owns /data and nothing else.
FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin gkt && install --directory --owner gkt --mode 0700 /data
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheels /wheels

FROM base AS server
# PyPI's torch brings 4 GB of CUDA libraries; this one is for CPUs.
RUN python -m pip install --constraint /constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
RUN python -m pip install --constraint /constraints.txt "$(ls /wheels/gkt_edge-*.whl)[server]"
USER gkt
VOLUME ["/data"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["python", "-c", "import json, ssl, urllib.request; urllib.request.urlopen(json.load(open('/data/run/server.json'))['url'] + '/v1/health/live', timeout=5, context=ssl._create_unverified_context())"]
# Ctrl-C, after which the run goes on from its folder another time.
STOPSIGNAL SIGINT
ENTRYPOINT ["gkt"]
CMD ["serve", "--data-dir", "/data/run", "--artifacts", "/artifacts", "--host", "0.0.0.0", "--port", "8080"]

FROM base AS device
RUN python -m pip install --constraint /constraints.txt "$(ls /wheels/gkt_edge-*.whl)[edge-portable,data]"
USER gkt
VOLUME ["/data"]
STOPSIGNAL SIGINT
ENTRYPOINT ["gkt", "edge"]
CMD ["run", "--join", "/join.txt", "--data", "/photos", "--state-dir", "/data/state"]
