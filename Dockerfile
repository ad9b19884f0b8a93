# Coalmine's two images, from one builder:
#
#   docker build --target sidecar  -t coalmine-sidecar .
#   docker build --target operator -t coalmine-operator .
#
# BASE_IMAGE has to bring python3 (3.11 or newer) with venv and pip; BUILD_IMAGE the same python3, and a C compiler. Both
# images run as UID 65532, on a read-only root, and need no shell. What others wrote and what we wrote are layers of their
# own: an upgrade of ours moves some megabytes.
ARG BASE_IMAGE=python:3.11-slim
ARG BUILD_IMAGE=python:3.11


# What the sidecar needs, in a virtual environment without pip. Empty packages stand in for ours, so that a change of our
# code does not install everything again.
FROM ${BUILD_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv /build && /build/bin/pip install 'hatchling>=1.27' && python3 -m venv --without-pip /opt/coalmine
RUN mkdir -p operator/coalmine_operator sidecar/coalmine_sidecar \
 && touch README.md operator/coalmine_operator/__init__.py sidecar/coalmine_sidecar/__init__.py
COPY pyproject.toml ./
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install '.[redis]' \
 && /build/bin/pip --python /opt/coalmine/bin/python3 uninstall --yes coalmine


# The hot path is compiled: a request takes 40 us of CPU instead of 68.
FROM builder AS sidecar-code
RUN /build/bin/pip install 'mypy>=2.4,<2.5' 'setuptools>=65'
COPY sidecar sidecar
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/coalmine/bin/python3 install --no-deps --target /code /wheels/*.whl \
 && rm -r /code/coalmine_operator /code/bin/coalmine
RUN /build/bin/python3 sidecar/compile.py /code --python=/opt/coalmine/bin/python3


FROM builder AS operator-needs
RUN /build/bin/pip --python /opt/coalmine/bin/python3 install '.[operator]' \
 && /build/bin/pip --python /opt/coalmine/bin/python3 uninstall --yes coalmine


FROM builder AS operator-code
COPY sidecar sidecar
COPY operator operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/coalmine/bin/python3 install --no-deps --target /code /wheels/*.whl


FROM ${BASE_IMAGE} AS runtime
# glibc gives each thread an arena of its own: MBs here, where threads do little but look up names and read /proc.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/coalmine/code MALLOC_ARENA_MAX=2
USER 65532:65532
WORKDIR /


FROM runtime AS sidecar
COPY --from=builder /opt/coalmine /opt/coalmine
COPY --from=sidecar-code /code /opt/coalmine/code
# Python would pass over modules that another version was compiled for, and take the slow ones.
RUN ["/opt/coalmine/bin/python3", "-c", "from coalmine_sidecar.relay import exchange as it; assert it.__file__.endswith('.so'), 'BASE_IMAGE and BUILD_IMAGE have two versions of Python'"]
EXPOSE 8008 8009 8010
ENTRYPOINT ["/opt/coalmine/bin/python3", "-m", "coalmine_sidecar"]


FROM runtime AS operator
COPY --from=operator-needs /opt/coalmine /opt/coalmine
COPY --from=operator-code /code /opt/coalmine/code
ENTRYPOINT ["/opt/coalmine/bin/python3", "-m", "coalmine_operator"]
