# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# What was deployed: a folder for each deployment, with all that it takes to deploy it again. Its file `state` says what became
# of it: begun, good, refused by its check, failed, returned from after that, or withdrawn by a rollback. The present deployment
# is the last good one.

KEPT=10

prepare_records() {
    records=$root/.deployments/$environment-$target
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/deploy.XXXXXX")
    trap at_end EXIT
}

at_end() {
    [[ ! ${folder-} || $(state_of "$folder") != begun ]] || ended "$folder" failed
    [[ ! ${network-} ]] || away
    rm -rf "$scratch"
}

hold_lock() {
    ! $dry_run || return 0
    needs flock "it keeps two runs apart"
    mkdir -p "$records" && [[ -w $records ]] || fail "$records cannot be written: deployments are written down there"
    exec {lock}>>"$records/lock"
    flock -n "$lock" || fail "another run is at work on $environment ($target); wait until it has ended"
}

ours_in() { # FOLDER: those of our processes that are in its file
    local name there
    there=" $("${target}_services" "$1" | tr '\n' ' ') "
    for name in "${ORDER[@]}"; do [[ $there != *" $name "* ]] || printf '%s\n' "$name"; done
}

# `these` become those of them that --workers names.
choose() { # FOLDER
    local name there said="COMPOSE_PROFILES of the environment's file says"
    [[ $target == compose ]] || said="docker/kubernetes/overlays/$environment says"
    these=()
    there=" $(ours_in "$1" | tr '\n' ' ') "
    for name in "${workers[@]}"; do
        if [[ $name == beat && $(setting TAKEOVER no) == share ]] && everything; then
            say "beat stays out of it: the other platform's sends what runs at its time"
        elif [[ $there == *" $name "* ]]; then
            these+=("$name")
        elif ! everything; then
            fail "$name is not deployed here, which has${there% }: $said what is"
        fi
    done
    ((${#these[@]})) || fail "there is none of our processes: $said what is deployed"
}

state_of() { cat "$1/state" 2>/dev/null || echo none; }

good() { # the folders of good deployments, the newest first
    local folder
    printf '%s\n' "$records"/[0-9]* | sort -r | while IFS= read -r folder; do
        [[ $(state_of "$folder") != good ]] || printf '%s\n' "$folder"
    done
}

present() { good | sed -n 1p; }

newest() { printf '%s\n' "$records"/[0-9]* | sort | sed -n '$p'; }

# What is looked at, stopped and removed may also be what a first deployment left that failed.
need_present() {
    current=$(present)
    if [[ ! $current && $action =~ ^(logs|stop|remove)$ && -d $(newest) ]]; then current=$(newest); fi
    [[ $current ]] || fail "nothing is deployed to $environment ($target); begin with --action deploy"
}

# A folder for what is about to be deployed; in a dry run one that is gone afterwards.
begin() {
    local last
    last=$(newest)
    last=${last##*/}
    [[ $last =~ ^[0-9]+$ ]] || last=0
    folder=$records/$(printf '%04d' $((10#$last + 1)))
    ! $dry_run || folder=$scratch/$(basename "$folder")
    mkdir -p "$folder"
    {
        echo "time $(date -u +%Y-%m-%dT%H:%M:%SZ)"
        echo "action $action"
        [[ $action == scale ]] && echo "replicas $replicas" || echo "tag ${tag:-$(setting TAG latest)}"
        [[ $target == compose ]] || echo "context $context"
        echo "workers $chosen"
        echo "revision $(revision)"
    } >"$folder/about"
    echo begun >"$folder/state"
}

ended() { # FOLDER STATE
    $dry_run || echo "$2" >"$1/state"
}

about() { # FOLDER: one line of it
    printf '%s (%s' "${1##*/}" "$(state_of "$1")"
    sed 's/^/, /' "$1/about" | tr -d '\n'
    echo ')'
}

# What is older than the newest is not returned to.
forget() {
    local folder
    printf '%s\n' "$records"/[0-9]* | sort -r | tail -n +$((KEPT + 1)) | while IFS= read -r folder; do
        [[ $folder == "$(present)" ]] || rm -rf "$folder"
    done
    [[ $target != compose ]] || unpin
}

# Roll out a folder; if that fails, return to the last good one.
deploy_or_return() { # FOLDER SERVICE...
    local folder=$1 last
    shift
    last=$(present)
    if ! "${target}_prepare" "$folder" "$@"; then
        ended "$folder" refused
        [[ ! $last ]] || "${target}_common" "$last" || true
        fail "the check failed; none of our processes was changed"
    fi
    if [[ $(setting TAKEOVER no) == verify ]]; then
        rm -rf "$folder"
        say "TAKEOVER=verify: this is what was found; no worker was started"
        return 0
    fi
    if "${target}_roll_out" "$folder" "$@"; then
        ended "$folder" good
        $dry_run || { forget && say "deployed: $(about "$folder")"; }
        return 0
    fi
    ended "$folder" failed
    return_to "$last" "$@"
}

return_to() { # FOLDER SERVICE...: after a failure of these; the script ends here
    [[ $1 ]] || fail "the deployment failed, and there is no good one to return to; what runs was left as it is: --action logs, remove"
    say "the deployment failed; returning to the last good one: $(about "$1")"
    if "${target}_common" "$1" && "${target}_roll_out" "$@"; then
        [[ $(state_of "$(newest)") != failed ]] || ended "$(newest)" returned
        fail "the deployment failed; the last good one, ${1##*/}, is back and ready"
    fi
    fail "the deployment failed, and so did the return to ${1##*/}; look at --action status and --action logs"
}

roll_back() {
    local before
    need_present
    before=$(good | sed -n 2p)
    # What was broken off, or could not be returned from, is what is left behind.
    if [[ $(state_of "$(newest)") =~ ^(begun|failed)$ ]]; then
        before=$current current=$(newest)
    fi
    [[ $before ]] || fail "there is no good deployment before ${current##*/} to return to"
    everything || wrong "--action rollback returns to a whole deployment: leave --workers away"
    choose "$before"
    say "from $(about "$current") back to $(about "$before")"
    if "${target}_common" "$before" && "${target}_roll_out" "$before" "${these[@]}"; then
        ended "$current" withdrawn
        $dry_run || say "deployed: $(about "$before")"
        return 0
    fi
    [[ $(state_of "$current") == good ]] || fail "the rollback to ${before##*/} failed; look at --action status and --action logs"
    return_to "$current" "${these[@]}"
}

show_records() {
    local last
    current=$(present)
    last=$(newest)
    echo "deployed to $environment ($target): $([[ $current ]] || echo nothing)"
    [[ ! $current ]] || about "$current"
    [[ ! -d $last || $last == "$current" ]] || echo "the last attempt: $(about "$last")"
}
