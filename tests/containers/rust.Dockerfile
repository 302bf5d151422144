# Stands in for the public image rust:1-slim-trixie. The build context holds the toolchain of the
# machine in `toolchain`, and in `machine` the settings that it needs to reach its registry.
FROM debian:trixie-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local
COPY machine/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY machine/cargo /usr/local/cargo
ENV CARGO_HOME=/usr/local/cargo
