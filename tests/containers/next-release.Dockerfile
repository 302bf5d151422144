# Rust with RabbitMQ and Redis, or Valkey, as another Debian release has them; see `next-release`.
ARG RUST_IMAGE=rust:1-slim-trixie
FROM ${RUST_IMAGE}
# redis-server or valkey-server.
ARG STORE=redis-server
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev procps python3 python3-pika python3-redis rabbitmq-server ${STORE} \
    && rm -rf /var/lib/apt/lists/*
# The tests start what is called redis-server.
RUN command -v redis-server || ln -s /usr/bin/valkey-server /usr/local/bin/redis-server
WORKDIR /src
