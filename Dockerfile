# The `longshore` binary in a small image: `docker build -t longshore .`
# One image serves as scheduler, worker and command line; docker-compose.yml chooses by the command.
ARG RUST_IMAGE=rust:1-slim-trixie
ARG BASE_IMAGE=debian:trixie-slim

FROM ${RUST_IMAGE} AS builder
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --package longshore-cli \
    --features bench --bin longshore

FROM ${BASE_IMAGE}
# An unprivileged user: workers run commands whose parameters come from jobs.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/longshore longshore
# Copied, so that this stage needs neither packages nor a network.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /src/target/dist/longshore /usr/local/bin/longshore
USER longshore
WORKDIR /var/lib/longshore
# On SIGTERM schedulers and workers drain: they finish running subtasks, release the rest and exit.
STOPSIGNAL SIGTERM
ENTRYPOINT ["longshore"]
CMD ["--help"]
