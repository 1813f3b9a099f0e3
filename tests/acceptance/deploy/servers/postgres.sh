#!/bin/sh
# postgres.sh: make the cluster, its user and its database if there are none, then run the command. Of the environment:
#   POSTGRES_PASSWORD_FILE  the file with the user's password
#   POSTGRES_USER           postgres, unless set
#   POSTGRES_DB             as the user, unless set
#   PGDATA                  where it all is
# Usage: postgres.sh postgres [OPTION…]
set -eu
user=${POSTGRES_USER:-postgres}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD_FILE:?is not set: the file with the password of $user}"
    initdb --username="$user" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    database=${POSTGRES_DB:-$user}
    # Alone with its data, no server listens meanwhile: who asks `pg_isready` is told no until all is there.
    [ "$database" = postgres ] || echo "CREATE DATABASE \"$database\"" | postgres --single -j postgres
fi
exec "$@"
