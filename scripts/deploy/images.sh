# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Images: built from docker/, and measured.

IMAGES=(api-deployment general file-processing callback beat monitor)

need_engine() {
    needs docker "it runs the containers"
    docker info >/dev/null 2>&1 || fail "the Docker Engine does not answer: docker info says why"
}

image_named() { # SERVICE
    printf '%s/%s:%s' "$(setting IMAGE_PREFIX unstract-workers)" "$1" "${tag:-$(setting TAG latest)}"
}

build() { # SERVICE [REFERENCE]
    local through=() version
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
    [[ ! ${BUILD_NETWORK-} ]] || through=(--network "$BUILD_NETWORK")
    say "building $1"
    run docker build --quiet "${through[@]}" --file "$root/docker/${1//-/_}.Dockerfile" --tag "${2:-$(image_named "$1")}" \
        --build-arg BASE_IMAGE="$(setting BASE_IMAGE python:3.13-slim)" --build-arg VERSION="$version" \
        --build-arg REVISION="$(revision)" "$root" >"$scratch/built" ||
        fail "the image of $1 could not be built"
    ! $dry_run || cat "$scratch/built"
}

build_images() {
    local name wanted=()
    need_engine
    everything && wanted=("${IMAGES[@]}") || wanted=("${workers[@]}")
    for name in "${wanted[@]}"; do build "$name"; done
    ! $dry_run || return 0
    measure "${wanted[@]}"
}

# Each over its base; seconds from the start of a container until its process works, by the engine's clock, and its memory
# then, beside a Redis that is broker and state store; and a digest of the layers that it adds, the same for the same input.
measure() { # SERVICE...
    local name image base over tree
    base=$(docker image inspect --format '{{.Size}}' "$(setting BASE_IMAGE python:3.13-slim)")
    network=deploy-images-$$
    docker network create "$network" >/dev/null
    docker run --detach --network "$network" --network-alias redis redis:8 redis-server --protected-mode no >/dev/null ||
        fail "the images are built; to measure them redis:8 is needed"
    printf '%-17s%14s%10s%12s  %s\n' image 'MB over base' seconds 'memory MiB' 'digest of its tree'
    for name in "$@"; do
        image=$(image_named "$name")
        over=$(docker image inspect --format '{{.Size}}' "$image" | awk -v base="$base" '{ printf "%.1f", ($1 - base) / 1e6 }')
        tree=$(docker image inspect --format '{{range .RootFS.Layers}}{{println .}}{{end}}' "$image" | grep . | tail -n 2 | sha256sum)
        start_up "$image"
        printf '%-17s%14s%10s%12s  %s\n' "$name" "$over" "$took" "$memory" "${tree:0:16}"
    done
}

away() {
    docker ps --all --quiet --filter network="$network" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    docker network rm "$network" >/dev/null
}

# `took` becomes the seconds, `memory` the MiB.
start_up() { # IMAGE
    local id begun line='' until=$((SECONDS + 30))
    id=$(docker run --detach --network "$network" --read-only --tmpfs /tmp --env ENVIRONMENT=development --env LOG_FORMAT=json \
        --env CELERY_BROKER_URL=redis://redis:6379/0 --env CACHE_REDIS_HOST=redis --env CACHE_REDIS_DB=1 \
        --env INTERNAL_API_BASE_URL=http://backend/internal --env INTERNAL_SERVICE_API_KEY=nobody-asks-for-it "$1")
    while [[ ! $line ]]; do
        ((SECONDS < until)) || fail "$1 does not start: $(docker logs --tail 5 "$id" 2>&1)"
        sleep 0.1
        line=$(docker logs --timestamps "$id" 2>&1 | grep -m 1 -e '"worker_ready"' -e '"monitor_ready"' -e 'beat: Starting' || true)
    done
    begun=$(docker inspect --format '{{.State.StartedAt}}' "$id")
    took=$(awk -v begun="$(date -d "$begun" +%s.%N)" -v ready="$(date -d "${line%% *}" +%s.%N)" 'BEGIN { printf "%.2f", ready - begun }')
    memory=$(docker stats --no-stream --format '{{.MemUsage}}' "$id")
    memory=${memory%%MiB*}
    docker rm --force "$id" >/dev/null
}
