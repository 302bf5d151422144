#!/bin/sh
# Starts Redis with a user for each role of Longshore; further arguments go to redis-server.
set -eu
umask 022
sh /deploy/render.sh /deploy/redis/users.acl >/tmp/users.acl
# The users decide who may connect, not the network.
set -- redis-server --aclfile /tmp/users.acl --protected-mode no "$@"
# In the public image it changes to the user redis.
if command -v docker-entrypoint.sh >/dev/null; then set -- docker-entrypoint.sh "$@"; fi
exec "$@"
