# Coalmine's two images, from one builder:
#
#   docker build --target sidecar  -t coalmine-sidecar .
#   docker build --target operator -t coalmine-operator .
#
# The base has to bring python3 (3.11 or newer) with venv and pip. Both images run as UID 65532, on a read-only root, and
# need no shell.
ARG BASE_IMAGE=python:3.11-slim


# What the sidecar needs, in a virtual environment without pip. Dependencies come first: they change seldom.
FROM ${BASE_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/coalmine
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > base.txt \
 && /build/bin/pip --python /opt/coalmine/bin/python3 install -r base.txt
COPY README.md ./
COPY sidecar sidecar
COPY operator operator
RUN /build/bin/pip wheel --no-deps --wheel-dir /wheels .


FROM builder AS sidecar-files
# One wheel holds both packages; the operator's code has no business in a model's pod.
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install --no-deps /wheels/*.whl \
 && rm -r /opt/coalmine/lib/python3*/site-packages/coalmine_operator /opt/coalmine/bin/coalmine \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/coalmine/lib


FROM builder AS operator-files
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install "$(echo /wheels/*.whl)[operator]" \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/coalmine/lib


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
