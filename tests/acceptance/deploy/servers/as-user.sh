#!/bin/sh
# as-user.sh: run a server as the user that owns its volume. As in the official images, one that compose starts as somebody
# else (`user:`) stays that one.
# Usage: as-user.sh USER FOLDER COMMAND [ARGUMENT…]
set -eu
user=$1 folder=$2
shift 2
[ "$(id -u)" = 0 ] || exec "$@"
find "$folder" ! -user "$user" -exec chown "$user:" {} +
exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
