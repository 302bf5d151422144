#!/bin/sh
# Prints a file with the passwords of the environment in place of ${LONGSHORE_…PASSWORD}.
set -eu
script=
for role in ADMIN_ SCHEDULER_ WORKER_ API_ READER_ ''; do
    name=LONGSHORE_${role}PASSWORD
    eval "value=\${$name:-}"
    case $value in
    '')
        echo "$name: not set; give each role a password" >&2
        exit 1
        ;;
    *[!A-Za-z0-9._~-]*)
        echo "$name: a character that a URL or a configuration file may need escaped;" \
            "use A-Z a-z 0-9 . _ ~ -" >&2
        exit 1
        ;;
    esac
    script="$script;s|\${$name}|$value|g"
done
exec sed "${script#;}" "$1"
