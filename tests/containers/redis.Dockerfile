# Stands in for the public image redis:8, as far as docker-compose.yml uses it.
FROM debian:trixie-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /data && chown redis:redis /data
# The public image listens for its network without a password, too.
RUN printf '#!/bin/sh\nexec "$@" --protected-mode no\n' >/usr/local/bin/entrypoint \
    && chmod 755 /usr/local/bin/entrypoint
USER redis
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["entrypoint"]
CMD ["redis-server"]
