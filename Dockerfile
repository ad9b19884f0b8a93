# Coalmine's two images, from one builder:
#
#   docker build --target sidecar  -t coalmine-sidecar .
#   docker build --target operator -t coalmine-operator .
#
# The base has to bring python3 (3.11 or newer) with venv and pip. Both images run as UID 65532, on a read-only root, and
# need no shell.
ARG BASE_IMAGE=python:3.11-slim


# What the sidecar needs, in a virtual environment without pip. Empty packages stand in for ours, so that a change of our
# code does not install everything again.
FROM ${BASE_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/coalmine \
 && mkdir -p operator/coalmine_operator sidecar/coalmine_sidecar \
 && touch README.md operator/coalmine_operator/__init__.py sidecar/coalmine_sidecar/__init__.py
COPY pyproject.toml ./
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install .


FROM builder AS sidecar-files
COPY sidecar sidecar
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install --no-deps --force-reinstall . \
 && rm -r /opt/coalmine/lib/python3*/site-packages/coalmine_operator /opt/coalmine/bin/coalmine


FROM builder AS operator-needs
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install '.[operator]'


FROM operator-needs AS operator-files
COPY sidecar sidecar
COPY operator operator
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install --no-deps --force-reinstall .


FROM ${BASE_IMAGE} AS runtime
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /


FROM runtime AS sidecar
COPY --from=sidecar-files /opt/coalmine /opt/coalmine
EXPOSE 8008 8009 8010
ENTRYPOINT ["/opt/coalmine/bin/python3", "-m", "coalmine_sidecar"]


FROM runtime AS operator
COPY --from=operator-files /opt/coalmine /opt/coalmine
ENTRYPOINT ["/opt/coalmine/bin/python3", "-m", "coalmine_operator"]
