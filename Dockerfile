# Serves `docker build .` and, with a Debian base, `buildah build --build-arg BASE=…`.
# Layers from the one that changes least to the one that changes most: dependencies, then the package.
ARG BASE=python:3.13-slim

FROM ${BASE} AS dependencies
RUN python3 -m venv /opt/backstop
COPY requirements/runtime.txt /src/requirements/
RUN /opt/backstop/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements/runtime.txt

FROM ${BASE} AS builder
RUN python3 -m venv /opt/builder
COPY requirements/build.txt /src/requirements/
RUN /opt/builder/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY operator /src/operator
RUN /opt/builder/bin/python -m pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheels /src

FROM dependencies AS package
COPY --from=builder /wheels /wheels
RUN /opt/backstop/bin/python -m pip install --no-cache-dir --no-deps --no-index --prefix /package /wheels/*.whl

FROM dependencies
COPY --from=package /package /opt/backstop
ENV PATH=/opt/backstop/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /
CMD ["backstop-operator"]
