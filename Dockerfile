# The server's image (target `server`, the default) and the demo's (target `demo`).
# Written for every builder: no BuildKit-only syntax.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY ext_authz ext_authz
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .
# no pip in what is shipped: the one in /opt/build installs into it from outside
RUN python -m venv --without-pip /opt/ext-authz \
 && /opt/build/bin/pip --python /opt/ext-authz/bin/python install \
      --no-cache-dir --only-binary :all: --constraint constraints.txt "$(echo /wheels/*.whl)"

FROM build AS build-demo
# the typed Envoy configuration that `ext-authz demo` writes; Envoy itself has its own image
RUN /opt/build/bin/pip --python /opt/ext-authz/bin/python install \
      --no-cache-dir --only-binary :all: --constraint constraints.txt envoy-data-plane

FROM python:${PYTHON_VERSION}-slim AS base
ENV PATH=/opt/ext-authz/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# a number, so that `runAsNonRoot` can be checked before the container starts
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["ext-authz"]

FROM base AS demo
# a volume that is mounted here for the first time belongs to the user who fills it
USER 0
RUN mkdir -m 0700 /demo && chown 10001:10001 /demo
USER 10001:10001
LABEL org.opencontainers.image.title="ext-authz demo" \
      org.opencontainers.image.description="Keys, authorization server and upstream of the ext-authz demo" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-demo /opt/ext-authz /opt/ext-authz

FROM base AS server
LABEL org.opencontainers.image.title="ext-authz" \
      org.opencontainers.image.description="Authorization server for Envoy and Istio: certificate-bound tokens, SPIFFE identities, policy per route" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ext-authz /opt/ext-authz
# Check, and the admin listener with /livez, /readyz and /metrics
EXPOSE 9000 9001
# python is there anyway; a shell client would be one more program to keep patched
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9001/readyz', timeout=2)"]
CMD ["serve", "--config", "/etc/ext-authz/config.yaml"]
