# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Words to whoever runs the script, and commands that a dry run shows and does not run.

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "deploy.sh: $*"
    exit 1
}

wrong() {
    say "deploy.sh: $*; see --help"
    exit 2
}

usage() { sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "$root/scripts/deploy.sh"; }

one_of() { # OPTION VALUE CHOICE...
    local option=$1 value=$2 choice
    shift 2
    for choice in "$@"; do [[ $value != "$choice" ]] || return 0; done
    wrong "$option must be one of $*; it is '$value'"
}

# Everything that changes anything goes through here.
run() {
    if $dry_run; then
        printf '+ %s\n' "$(printf '%q ' "$@")"
    else
        "$@"
    fi
}

# The same, when what it says does not matter, and whether it works neither.
run_quietly() {
    if $dry_run; then
        run "$@"
    else
        "$@" >/dev/null 2>&1 || true
    fi
}

revision() { git -C "$root" describe --always --dirty 2>/dev/null || echo unknown; }

needs() { # PROGRAM WHY
    command -v "$1" >/dev/null || fail "$1 is not installed here: $2"
}

ask() {
    local answer where=''
    [[ $environment == production ]] && ! $yes && ! $dry_run || return 0
    [[ -t 0 ]] || fail "production asks before --action $action, and nobody is there to answer: say --yes"
    [[ $target == compose ]] || { need_context && where=" in the cluster of context $context"; }
    read -r -p "--action $action changes production$where. Type production to go on: " answer
    [[ $answer == production ]] || fail "nothing was changed"
}

# The services of --workers by their names, in the order in which they are deployed: who takes work before who hands it out.
ORDER=(callback slow file-processing fast all general api-deployment beat monitor)

read_workers() {
    local name named=()
    IFS=, read -r -a given <<<"$chosen"
    for name in "${given[@]}"; do
        case $name in
        all) named+=("${ORDER[@]}") ;;
        api | api_deployment) named+=(api-deployment) ;;
        file | file_processing) named+=(file-processing) ;;
        general | callback | fast | slow | beat | monitor | api-deployment | file-processing) named+=("$name") ;;
        *) wrong "--workers has no '$name'; there are all, api, general, file, callback, fast, slow, beat and monitor" ;;
        esac
    done
    ((${#named[@]})) || wrong "--workers names nobody"
    workers=()
    for name in "${ORDER[@]}"; do
        [[ " ${named[*]} " != *" $name "* ]] || workers+=("$name")
    done
}

everything() { ((${#workers[@]} == ${#ORDER[@]})); }
