# What the tests run inside the cluster (the fake model server, load): the product's image and this package.
ARG BASE=localhost/backstop:dev
FROM ${BASE}
COPY e2e /opt/e2e/e2e
ENV PYTHONPATH=/opt/e2e
