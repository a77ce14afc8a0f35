# The server's image (target `server`, the default) and the demo's (target `demo`).
# Written for every builder: no BuildKit-only syntax. docs/supply-chain.md says how to get the same image twice.
#
# Both may be pinned by digest (`--build-arg BUILD_IMAGE=python@sha256:…`). What runs needs Python and its C library, of
# the same minor version as at build, and no shell and no package manager.
ARG BUILD_IMAGE=python:3.13-slim
ARG RUNTIME_IMAGE=python:3.13-slim

FROM ${BUILD_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# no pip in what is shipped: the one in /opt/build installs into it from outside
COPY supply_chain/requirements-build.txt supply_chain/requirements-server.txt supply_chain/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement supply_chain/requirements-build.txt \
 && python -m venv --without-pip /opt/ext-authz \
 && /opt/build/bin/pip --python /opt/ext-authz/bin/python install --no-compile \
      --require-hashes --requirement supply_chain/requirements-server.txt --report /opt/server.json
# the time of every file in the image; the commit's makes sense
ARG SOURCE_DATE_EPOCH=1580601600
# where RUNTIME_IMAGE has its interpreter, if not where BUILD_IMAGE has it
ARG RUNTIME_PYTHON=
# for the stages that begin here as well
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} RUNTIME_PYTHON=${RUNTIME_PYTHON}
COPY pyproject.toml README.md LICENSE ./
COPY ext_authz ext_authz
COPY supply_chain supply_chain
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/ext-authz/bin/python install --no-compile --no-deps --no-index /wheels/*.whl

FROM build AS build-server
RUN /opt/build/bin/python supply_chain/sbom.py --packages /opt/ext-authz/lib/python3.*/site-packages \
      --report /opt/server.json /opt/ext-authz/sbom.cdx.json \
 && sh supply_chain/settle /image

FROM build AS build-demo
# the typed Envoy configuration that `ext-authz demo` writes; Envoy itself has its own image
RUN /opt/build/bin/pip --python /opt/ext-authz/bin/python install --no-compile \
      --require-hashes --requirement supply_chain/requirements-demo.txt --report /opt/demo.json \
 && /opt/build/bin/python supply_chain/sbom.py --lock demo --packages /opt/ext-authz/lib/python3.*/site-packages \
      --report /opt/server.json --report /opt/demo.json /opt/ext-authz/sbom.cdx.json \
 && sh supply_chain/settle /image \
 && mkdir -p /volume && mkdir -m 0700 /volume/demo && touch --date="@$SOURCE_DATE_EPOCH" /volume/demo /volume

# No step below runs anything: the image may be one without a shell.
FROM ${RUNTIME_IMAGE} AS base
ENV PATH=/opt/ext-authz/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# a number, so that `runAsNonRoot` can be checked before the container starts
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["ext-authz"]

FROM base AS demo
LABEL org.opencontainers.image.title="ext-authz demo" \
      org.opencontainers.image.description="Keys, authorization server and upstream of the ext-authz demo" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-demo /image/ /
# a volume that is mounted here for the first time belongs to the user who fills it
COPY --from=build-demo --chown=10001:10001 /volume/ /

FROM base AS server
LABEL org.opencontainers.image.title="ext-authz" \
      org.opencontainers.image.description="Authorization server for Envoy and Istio: certificate-bound tokens, SPIFFE identities, policy per route" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-server /image/ /
# Check, and the admin listener with /livez, /readyz and /metrics
EXPOSE 9000 9001
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["ext-authz-probe"]
CMD ["serve", "--config", "/etc/ext-authz/config.yaml"]
