# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# An environment's file: docker/ENVIRONMENT.env, or on Kubernetes docker/kubernetes/overlays/ENVIRONMENT/settings.env.

# Between SIGTERM and SIGKILL, in config/workers.py, compose and Kubernetes.
GRACE_SECONDS=30

setting() { # NAME DEFAULT: of this process's environment, or else of the environment's file
    local found=${!1-}
    [[ $found || ! -r $env_file ]] || found=$(sed -n "s/^$1=//p" "$env_file" | tail -n 1)
    printf '%s' "${found:-$2}"
}

configure() {
    env_file=$root/docker/$environment.env
    # Whatever else there is to do is done with what was written down when it was deployed.
    [[ $target == compose || $action == images ]] || env_file=$root/docker/kubernetes/overlays/$environment/settings.env
    [[ $action =~ ^(deploy|config)$ ]] || return 0
    [[ $target != compose || -e $env_file || $environment != development ]] || make_development
    [[ -r $env_file ]] || fail "there is no ${env_file#"$root/"}: copy docker/sample.env to it, and fill it in"
    check_env_file
}

mistaken() { # SENTENCE: of each name on standard input
    local name
    while IFS= read -r name; do mistakes+=("${1/NAME/"$name"}"); done
}

# What compose and this script would read differently is refused, rather than guessed.
check_env_file() {
    local name path mistakes=() read_here='[A-Z_]+_FILE|TAG|TAKEOVER|DRAIN_SECONDS|IMAGE_PREFIX|BASE_IMAGE|COMPOSE_[A-Z_]+'
    ! grep -q $'\r' "$env_file" || fail "${env_file#"$root/"} has Windows line ends: sed -i 's/\r$//' ${env_file#"$root/"}"
    mistaken "line NAME is neither NAME=VALUE nor a comment" < \
        <(grep -nvE '^([A-Z][A-Z0-9_]*=.*|#.*|[[:space:]]*)$' "$env_file" | cut -d : -f 1)
    mistaken "NAME: write its value without quotes, and no comment behind it" < \
        <(sed -n -E "s/^($read_here)=([\"'].*|.*[[:space:]].*)$/\1/p" "$env_file")
    mistaken "NAME must be a whole number" < <(sed -n -E '/_REPLICAS=[0-9]+$/d; s/^([A-Z_]+_REPLICAS)=.+$/\1/p' "$env_file")
    mistaken "NAME is empty" < <(sed -n 's/^\([A-Z_]*\)=[[:space:]]*$/\1/p' "$env_file")
    mistaken "NAME is to be replaced by what it describes" < <(sed -n 's/^\([A-Z_]*=<.*>\)$/\1/p' "$env_file")
    while IFS='=' read -r name path; do
        [[ $path == /* ]] || path=$root/docker/$path
        if [[ ! -e $path ]]; then
            mistakes+=("$name names $path, which is not there")
        elif [[ -d $path ]]; then
            mistakes+=("$name names $path, which is a folder")
        elif [[ -f $path && ! $(find "$path" \( -perm -o=r -o -uid 10001 \)) ]]; then
            mistakes+=("$name names $path, which user 10001, the containers', may not read")
        fi
    done < <([[ $target != compose ]] || grep -E '^[A-Z_]+_FILE=.' "$env_file")
    awk -v drain="$(setting DRAIN_SECONDS 10)" -v grace="$GRACE_SECONDS" \
        'BEGIN { exit !(drain ~ /^[0-9.]+$/ && drain + 5 <= grace) }' ||
        mistakes+=("DRAIN_SECONDS must be 5 below the grace of a container, $GRACE_SECONDS, or it is killed at its work")
    [[ $(setting TAKEOVER no) =~ ^(no|verify|share|all)$ ]] || mistakes+=("TAKEOVER must be verify, share, all or no")
    ((!${#mistakes[@]})) || fail "${env_file#"$root/"} is not right:$(printf '\n  %s' "${mistakes[@]}")"
}

secret() { head -c 30 /dev/urandom | base64 | tr -d '+/=\n'; }

keep() { # NAME: standard input becomes that secret
    cat >"$secrets/$1"
    chmod 444 "$secrets/$1"
}

# Everything on one machine, with keys that nobody else has.
make_development() {
    local broker redis database folder=$root/docker
    if $dry_run; then
        folder=$scratch env_file=$scratch/development.env
    fi
    secrets=$folder/secrets/development
    broker=$(secret) redis=$(secret) database=$(secret)
    (umask 077 && mkdir -p "$secrets")
    secret | keep internal_service_api_key
    keep celery_broker_url <<<"amqp://workers:$broker@rabbitmq:5672//"
    keep rabbitmq_management_url <<<"http://workers:$broker@rabbitmq:15672"
    printf 'default_user = workers\ndefault_pass = %s\n' "$broker" | keep rabbitmq_conf
    keep cache_redis_password <<<"$redis"
    keep redis_conf <<<"requirepass $redis"
    printf '%s' "$database" | keep postgres_password
    keep database_url <<<"postgresql://backend:$database@postgres:5432/backend"
    secret | keep grafana_password
    echo "workers:$(secret)" | keep flower_basic_auth
    local at=$secrets edits=()
    $dry_run || at=./secrets/development
    local said
    for said in COMPOSE_PROFILES=workers,servers,sandbox ENVIRONMENT=development CACHE_REDIS_HOST=redis \
        INTERNAL_API_BASE_URL=http://backend:8000/internal; do
        edits+=(-e "s|^#\{0,1\}${said%%=*}=.*|$said|")
    done
    for said in "$secrets"/*; do
        said=${said##*/}
        edits+=(-e "s|^#\{0,1\}${said^^}_FILE=.*|${said^^}_FILE=$at/$said|")
    done
    sed "${edits[@]}" "$root/docker/sample.env" >"$env_file"
    say "$($dry_run && echo 'would make' || echo made) docker/development.env, and its keys in docker/secrets/development"
}
