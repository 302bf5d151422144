# The `longshore` binary in a small image: `docker build -t longshore .`
# The same image is scheduler, worker and command line; docker-compose.yml says which.
ARG RUST_IMAGE=rust:1-slim-trixie
ARG BASE_IMAGE=debian:trixie-slim

FROM ${RUST_IMAGE} AS builder
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --package longshore --bin longshore

FROM ${BASE_IMAGE}
# A user without rights: workers run commands that jobs parametrise.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/longshore longshore
# Copied, so that this stage needs no package and no network.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /src/target/dist/longshore /usr/local/bin/longshore
USER longshore
WORKDIR /var/lib/longshore
# Schedulers and workers drain on it: they finish what runs, hand back the rest, and leave.
STOPSIGNAL SIGTERM
ENTRYPOINT ["longshore"]
CMD ["--help"]
