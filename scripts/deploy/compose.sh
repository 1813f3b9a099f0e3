# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Docker compose. What is deployed is always a recorded file, in which everything is resolved: variables, images, replicas. So a
# deployment can be returned to whatever has become of the environment's file, the checkout, or a tag.

PATIENCE_SECONDS=120

from_source() { # ARGUMENT...: compose, on the files that people edit
    ENV_FILE=$env_file TAG=${tag:-$(setting TAG latest)} \
        COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME "unstract-workers-$environment") docker compose --env-file "$env_file" \
        --file "$root/docker/docker-compose.workers.yml" "$@"
}

recorded() { # FOLDER ARGUMENT...: compose, on a recorded file
    local folder=$1
    shift
    COMPOSE_PROFILES='*' docker compose --file "$folder/compose.yml" "$@"
}

run_recorded() { # FOLDER ARGUMENT...
    if $dry_run; then
        printf '+ docker compose --file %q %s\n' "$1/compose.yml" "$(shift && printf '%q ' "$@")"
    else
        recorded "$@"
    fi
}

need_compose() {
    need_engine
    local found
    found=$(docker compose version --short 2>/dev/null) || fail "docker compose is not installed here"
    [[ $(printf '%s\n' 2.20 "${found#v}" | sort -V | sed -n 1p) == 2.20 ]] || fail "docker compose $found is too old: 2.20 or newer"
}

compose_services() { recorded "$1" config --services; }

image_of() { # FOLDER SERVICE
    awk -v service="  $2:" '$0 == service { here = 1; next } /^  [^ ]/ { here = 0 } here && $1 == "image:" { print $2 }' \
        "$1/compose.yml"
}

others_in() { compose_services "$1" | grep -vxF "$(printf '%s\n' "${ORDER[@]}")" || true; }

# A tag that is moved, or an image that is pruned, must not change what a deployment was: each image gets a tag of its own.
# `image` becomes that.
pin() { # REFERENCE
    local id maker=${1%:*} there=false
    ! docker image inspect "$1" >/dev/null 2>&1 || there=true
    # Without a tag it is the checkout that is deployed to development: whatever is in it.
    if [[ $environment == development && $action == deploy ]] && { ! $there || [[ ! $tag ]]; }; then
        build "${maker##*/}" "$1"
    elif ! $there; then
        run docker pull "$1" || fail "there is no image $1: build it with --action images, or push it where it is pulled from"
    fi
    id=$(docker image inspect --format '{{.Id}}' "$1" 2>/dev/null) || id=sha256:not-built-yet
    image=$1-${id:7:12}
    run docker tag "$1" "$image"
}

compose_config() {
    need_compose
    from_source config
}

compose_deploy() {
    local name was
    need_compose
    begin
    current=$(present)
    from_source config >"$folder/compose.yml" || fail "docker compose does not take the configuration"
    choose "$folder"
    {
        echo services:
        for name in $(compose_services "$folder"); do
            was=''
            [[ ! $current ]] || was=$(image_of "$current" "$name")
            if [[ " ${these[*]} backend flower " == *" $name "* ]]; then
                pin "$(image_of "$folder" "$name")" >&2
            else
                [[ $was && " ${ORDER[*]} " == *" $name "* ]] || continue
                image=$was
            fi
            echo "  $name: {image: \"$image\"}"
        done
    } >"$scratch/override.yml"
    from_source --file "$scratch/override.yml" config >"$folder/compose.yml"
    deploy_or_return "$folder" "${these[@]}"
}

# The present deployment, with something else said of those of --workers.
amended() { # FUNCTION: says it of a service
    local name
    need_compose
    need_present
    choose "$current"
    begin
    {
        echo services:
        for name in "${these[@]}"; do "$1" "$name"; done
    } >"$scratch/override.yml"
    recorded "$current" --file "$scratch/override.yml" config >"$folder/compose.yml"
    deploy_or_return "$folder" "${these[@]}"
}

with_tag() { # SERVICE
    local before
    before=$(image_of "$current" "$1")
    pin "${before%:*}:$tag" >&2
    echo "  $1: {image: \"$image\"}"
}

with_replicas() { echo "  $1: {deploy: {replicas: $replicas}}"; }

compose_update() { amended with_tag; }

compose_scale() {
    ! everything || wrong "--action scale needs --workers: whom?"
    amended with_replicas
}

compose_rollback() {
    need_compose
    roll_back
}

servers_up() { # FOLDER
    local servers
    mapfile -t servers < <(others_in "$1")
    ((${#servers[@]})) || return 0
    say "servers: ${servers[*]}"
    run_recorded "$1" up --detach --no-build --no-deps --wait --wait-timeout "$PATIENCE_SECONDS" "${servers[@]}"
}

# The servers; then from inside an image whether tables, addresses and keys are right. No worker has been touched by then.
compose_prepare() { # FOLDER SERVICE...
    local folder=$1 name layout
    shift
    servers_up "$folder" || return 1
    layout=$(ours_in "$folder" | grep -vx -e beat -e monitor | tr - _ | paste -s -d ,)
    for name in "$@"; do
        [[ $name != beat && $name != monitor ]] || continue
        say "checking from inside $(image_of "$folder" "$name")"
        run docker run --rm --network none "$(image_of "$folder" "$name")" routing verify --profiles "$layout" >&2 || {
            say "that image does not run: workers routing verify --profiles $layout"
            return 1
        }
        run_recorded "$folder" run --rm --no-deps --no-TTY "$name" check >&2 || return 1
        compose_beside_others "$folder" "$name" "$layout" || return 1
        return 0
    done
}

# Workers that are not ours may be on that broker: what they have is only shown at first, and then they may have none of ours.
compose_beside_others() { # FOLDER SERVICE PROFILES
    local asked=(run --rm --no-deps --no-TTY "$2" routing verify --profiles "$3" --broker)
    case $(setting TAKEOVER no) in
    no) ;;
    verify) run_recorded "$1" "${asked[@]}" >&2 || true ;;
    *) run_recorded "$1" "${asked[@]}" --alone >&2 ;;
    esac
}

compose_unprepare() { servers_up "$1"; } # FOLDER: the last good one

# One service after the other, each of which must be ready before the next.
compose_roll_out() { # FOLDER SERVICE...
    local folder=$1 name ours
    shift
    mapfile -t ours < <(ours_in "$folder")
    for name in "${ours[@]}"; do
        [[ " $* " == *" $name "* ]] || continue
        say "$name: $(image_of "$folder" "$name")"
        run_recorded "$folder" up --detach --no-build --no-deps "$name" || return 1
        $dry_run || compose_await "$folder" "$name" || return 1
    done
    # What is in the file no more, since another profile is deployed, say.
    run_recorded "$folder" up --detach --no-build --no-deps --no-recreate --remove-orphans "${ours[0]}"
}

# Until every container of a service is ready, which for a worker means that it consumes. One that ends is not waited for.
compose_await() { # FOLDER SERVICE
    local id ids ready said='' until=$((SECONDS + PATIENCE_SECONDS))
    declare -A restarts=()
    while ((SECONDS < until)); do
        mapfile -t ids < <(recorded "$1" ps --all --quiet "$2")
        ready=0
        for id in "${ids[@]}"; do
            if ended_meanwhile "$id"; then
                say "$2 ends instead of being ready; the end of its log:"
                docker logs --tail 20 "$id" >&2
                return 1
            fi
            ! docker exec "$id" python -P -m shared.probe "${2//-/_}" /readyz >/dev/null 2>&1 || ready=$((ready + 1))
        done
        [[ $said == "$ready" ]] || say "$2: $ready of ${#ids[@]} ready"
        said=$ready
        ((ready < ${#ids[@]})) || return 0
        sleep 0.5
    done
    say "$2 was not ready within $PATIENCE_SECONDS s; the end of its log:"
    recorded "$1" logs --no-log-prefix --tail 20 "$2" >&2
    return 1
}

# Docker starts it again and again: it has ended if it has done so since it was first looked at.
ended_meanwhile() { # CONTAINER
    local status count
    read -r status count < <(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$1")
    [[ $status == running || $status == created ]] || return 0
    : "${restarts[$1]:=$count}"
    ((count > restarts[$1]))
}

compose_status() {
    need_compose
    show_records
    [[ $current ]] || current=$(newest)
    [[ ! -d $current ]] || recorded "$current" ps --all --format 'table {{.Service}}\t{{.Image}}\t{{.Status}}'
}

compose_logs() {
    need_compose
    need_present
    these=()
    everything || choose "$current"
    recorded "$current" logs --tail 100 --follow "${these[@]}"
}

# What works first, and the servers last: what is given back must find its broker.
compose_stop() {
    local servers
    need_compose
    need_present
    choose "$current"
    run_recorded "$current" stop --timeout "$GRACE_SECONDS" "${these[@]}"
    everything || return 0
    mapfile -t servers < <(others_in "$current")
    ((!${#servers[@]})) || run_recorded "$current" stop --timeout 60 "${servers[@]}"
}

compose_remove() {
    local image volume
    compose_stop
    if ! everything; then
        run_recorded "$current" rm --force "${these[@]}"
        return 0
    fi
    run_recorded "$current" down --volumes --remove-orphans
    # Those of profiles that were deployed once, too.
    while read -r volume; do
        run docker volume rm "$volume" >/dev/null
    done < <(docker volume ls --quiet --filter label=com.docker.compose.project="$(sed -n 's/^name: //p' "$current/compose.yml")")
    while read -r image; do
        run docker image rm "$image" >/dev/null 2>&1 || true
    done < <(sed -n 's/^    image: \(.*:.*-[0-9a-f]\{12\}\)$/\1/p' "$records"/*/compose.yml | sort -u)
    run rm -rf "$records"
    $dry_run || say "removed, with all data; kept: docker/$environment.env, and the files of its secrets"
}
