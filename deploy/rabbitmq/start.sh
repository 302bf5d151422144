#!/bin/sh
# Starts RabbitMQ with a user for each role of Longshore.
set -eu
umask 022
sh /deploy/render.sh /deploy/rabbitmq/definitions.json >/tmp/definitions.json
set -- rabbitmq-server
# In the public image it changes to the user rabbitmq.
if command -v docker-entrypoint.sh >/dev/null; then set -- docker-entrypoint.sh "$@"; fi
exec "$@"
