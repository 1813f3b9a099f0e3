# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Docker compose. What is deployed is always a recorded file, in which everything is resolved: variables, images, replicas. So a
# deployment can be returned to whatever has become of the environment's file, the checkout, or a tag.

PATIENCE_SECONDS=120
# What is ready must still be there after this time.
SETTLE_SECONDS=10
PUBLISHED='(BACKEND|PROMETHEUS|GRAFANA|FLOWER)_PORT'

from_source() { # ARGUMENT...: compose, on the files that people edit
    # What is compose's alone is kept from the containers: it would make new ones of all whenever it changes.
    grep -vE "^(COMPOSE_[A-Z_]+|TAKEOVER|TAG|IMAGE_PREFIX|BASE_IMAGE|[A-Z_]+_(REPLICAS|FILE)|$PUBLISHED)=" "$env_file" >"$scratch/env"
    ENV_FILE=$scratch/env TAG=${tag:-$(setting TAG latest)} \
        COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME "unstract-workers-$environment") docker compose --env-file "$env_file" \
        --file "$root/docker/docker-compose.workers.yml" "$@"
}

recorded() { # FOLDER ARGUMENT...: compose, on a recorded file
    local folder=$1
    shift
    # What another layout has left runs on until this one is ready.
    [[ " $* " == *' --remove-orphans '* ]] || local -x COMPOSE_IGNORE_ORPHANS=true
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

# What compose has resolved: these services alone, all unless said, and no dependency on one that is not there, which it
# does not take back.
tidy() { # FILE [SERVICE]...
    awk -v kept=" ${*:2} " '
        FNR == 1 { pass++ }
        /^[^ ]/ { section = $1; service = "" }
        section != "services:" { if (pass == 2) print; next }
        /^  [^ ]/ { service = substr($1, 1, length($1) - 1); here = kept == "  " || index(kept, " " service " "); dependencies = 0 }
        pass == 1 { if (service != "" && here) there[service]; next }
        service != "" && !here { next }
        /^    [^ ]/ { dependencies = $1 == "depends_on:"; held = $0 "\n" }
        dependencies && /^      [^ ]/ { listed = substr($1, 1, length($1) - 1) in there; if (listed) { printf "%s", held; held = "" } }
        !dependencies || (listed && !/^    [^ ]/)
    ' "$1" "$1"
}

# A label that changes with the files of its secrets, so that a deployment makes a new container of what has read the old ones.
secrets_of() { # FOLDER SERVICE
    awk -v wanted="$2:" '
        FNR == 1 { pass++ }
        /^[^ ]/ { section = $1 }
        /^  [^ ]/ { name = $1 }
        pass == 1 && section == "secrets:" && $1 == "file:" { file[substr(name, 1, length(name) - 1)] = substr($0, index($0, ": ") + 2) }
        pass == 2 && section == "services:" && name == wanted && $1 == "-" && $2 == "source:" && $3 in file { print file[$3] }
    ' "$1/compose.yml" "$1/compose.yml" | sort | while IFS= read -r path; do
        [[ ! -f $path ]] || stat --dereference --format '%n %s %.Y' "$path"
    done | cksum | tr -d ' '
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
    image=$1-$environment-${id:7:12}
    run docker tag "$1" "$image"
}

# Tags of their own that no record names any more.
unpin() {
    local image
    while IFS= read -r image; do
        grep -qsF "image: $image" "$records"/*/compose.yml || run_quietly docker image rm "$image"
    done < <(docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -E -- "-$environment-[0-9a-f]{12}\$")
}

compose_config() {
    need_compose
    from_source config
}

# Of ours those that are chosen, and those that are deployed already, with the images that they have.
compose_deploy() {
    local name was kept=()
    need_compose
    begin
    current=$(present)
    from_source config >"$scratch/source.yml" || fail "docker compose does not take the configuration"
    tidy "$scratch/source.yml" >"$folder/compose.yml"
    choose "$folder"
    {
        echo services:
        for name in $(compose_services "$folder"); do
            was=''
            [[ ! $current ]] || was=$(image_of "$current" "$name")
            image=$(image_of "$folder" "$name")
            if [[ " ${these[*]} backend flower " == *" $name "* ]]; then
                pin "$image" >&2
            elif [[ " ${ORDER[*]} " == *" $name "* ]]; then
                [[ $was ]] || continue
                image=$was
            fi
            kept+=("$name")
            echo "  $name: {image: \"$image\", labels: {workers.secrets: \"$(secrets_of "$folder" "$name")\"}}"
        done
    } >"$scratch/override.yml"
    from_source --file "$scratch/override.yml" config >"$scratch/source.yml"
    tidy "$scratch/source.yml" "${kept[@]}" >"$folder/compose.yml"
    deploy_or_return "$folder" "${these[@]}"
    [[ " ${kept[*]} " != *' backend '* ]] || $dry_run || say "the backend answers on http://$(recorded "$folder" port backend 8000)"
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

compose_common() { servers_up "$1"; } # FOLDER

# One service after the other, each of which must be ready before the next; and then a second look at all of them.
compose_roll_out() { # FOLDER SERVICE...
    local folder=$1 name mine=()
    declare -A restarts=()
    shift
    for name in $(ours_in "$folder"); do [[ " $* " != *" $name "* ]] || mine+=("$name"); done
    for name in "${mine[@]}"; do
        say "$name: $(image_of "$folder" "$name")"
        run_recorded "$folder" up --detach --no-build --no-deps "$name" || return 1
        $dry_run || compose_await "$folder" "$name" || return 1
    done
    $dry_run || [[ ! $action =~ ^(deploy|update)$ ]] || sleep "$SETTLE_SECONDS"
    for name in "${mine[@]}"; do $dry_run || compose_await "$folder" "$name" || return 1; done
    # What is in the file no more, since another profile is deployed, say.
    run_recorded "$folder" up --detach --no-build --no-deps --no-recreate --remove-orphans "${mine[0]}"
}

# Until every container of a service is ready, which for a worker means that it consumes. One that ends is not waited for.
compose_await() { # FOLDER SERVICE
    local id ids ready until=$((SECONDS + PATIENCE_SECONDS))
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
        [[ ${seen-} == "$2 $ready" ]] || say "$2: $ready of ${#ids[@]} ready"
        seen="$2 $ready"
        ((ready < ${#ids[@]})) || return 0
        sleep 0.5
    done
    say "$2 was not ready within $PATIENCE_SECONDS s; the end of its log, and what it says of itself:"
    for id in "${ids[@]}"; do
        docker logs --tail 10 "$id" >&2
        docker exec "$id" python -P -m shared.probe "${2//-/_}" /readyz >&2 || true
    done
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
    local volume
    compose_stop
    if ! everything; then
        run_recorded "$current" rm --force "${these[@]}"
        return 0
    fi
    run_recorded "$current" down --volumes --remove-orphans
    # Those of profiles that were deployed once, too.
    while IFS= read -r volume; do
        run_quietly docker volume rm "$volume"
    done < <(docker volume ls --quiet --filter label=com.docker.compose.project="$(sed -n 's/^name: //p' "$current/compose.yml")")
    run rm -rf "$records"
    unpin
    $dry_run || say "removed, with all data; kept: docker/$environment.env, and the files of its secrets"
}
