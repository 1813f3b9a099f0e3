# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Kubernetes. What is deployed is always a recorded file, in which everything is resolved: patches, images, replicas. The API
# server applies it, for one field manager: what an earlier deployment said and this one does not is taken away, what the
# autoscaler says is left, and what somebody changed by hand is put right. So a rollback returns to exactly what was.

ROLL_OUT_SECONDS=900
# Reasons for which a container waits that do not pass by themselves.
HOPELESS='^(CrashLoopBackOff|ImagePullBackOff|InvalidImageName|(CreateContainer|CreateContainerConfig|RunContainer)Error)$'

need_kubectl() {
    local found
    needs kubectl "it speaks to the cluster"
    found=$(kubectl version --client --output yaml | sed -n 's/^  gitVersion: v//p')
    [[ $(printf '%s\n' 1.27 "$found" | sort -V | sed -n 1p) == 1.27 ]] || fail "kubectl $found is too old: 1.27 or newer"
}

need_context() {
    need_kubectl
    context=$(kubectl config current-context 2>/dev/null) ||
        fail "kubectl has no current context: kubectl config use-context says which cluster is meant"
}

# The context is asked for once and named in every command: whoever switches meanwhile does not redirect a deployment.
need_cluster() {
    local was
    [[ ${context-} ]] || need_context
    was=$(present)
    [[ $was || $action == deploy ]] || was=$(newest)
    was=$(sed -n 's/^context //p' "$was/about" 2>/dev/null) || true
    [[ ! $was || $was == "$context" ]] ||
        fail "$environment is deployed in the cluster of context $was, and this is $context: kubectl config use-context $was"
    kube=(kubectl --context "$context")
    "${kube[@]}" version --request-timeout 10s >/dev/null 2>"$scratch/said" ||
        fail "the cluster of context $context does not answer: $(tail -n 1 "$scratch/said")"
    say "cluster: context $context"
}

# `here` becomes kubectl in the namespace of a deployment.
settle() { # FOLDER
    namespace=$(each "$1" '{{if eq .kind "Deployment"}}{{.metadata.namespace}}{{"\n"}}{{end}}' | sed -n 1p)
    [[ $namespace != '<no value>' ]] || fail "docker/kubernetes/overlays/$environment/kustomization.yaml needs its namespace"
    here=("${kube[@]}" --namespace "$namespace")
}

# `scratch` has what the overlay says, with the images of --tag.
render() {
    kubectl kustomize "$root/docker/kubernetes/overlays/$environment" >"$scratch/manifests.yaml" ||
        fail "kubectl does not take docker/kubernetes/overlays/$environment"
    choose "$scratch"
    [[ $tag ]] || return 0
    changed with_new_tag "$scratch" >"$scratch/tagged"
    mv "$scratch/tagged" "$scratch/manifests.yaml"
}

kubernetes_config() {
    need_kubectl
    render
    cat "$scratch/manifests.yaml"
}

kubernetes_deploy() {
    local name kept
    need_cluster
    render
    current=$(present)
    tag=$(for name in "${these[@]}"; do image_in "$scratch" "$name" | sed 's/.*://' && echo; done | sort -u | paste -s -d ' ')
    begin
    kept=$(others_deployed)
    [[ ! $kept ]] || keep_present "$kept"
    mv "$scratch/manifests.yaml" "$folder"
    deploy_or_return "$folder" "${these[@]}"
}

# Those in the overlay whom --workers does not name and who are deployed already.
others_deployed() {
    local name there=''
    [[ ! $current ]] || there=" $(ours_in "$current" | tr '\n' ' ') "
    for name in $(ours_in "$scratch"); do
        [[ " ${these[*]} " == *" $name "* || $there != *" $name "* ]] || echo "$name"
    done | paste -s -d ,
}

# They stay as at present, with the settings and whatever else they have.
keep_present() { # SERVICE[,SERVICE]...
    local at=$scratch/chosen said
    mkdir "$at"
    without "$scratch" "{labelSelector: \"$OURS in ($1)\"}" >"$at/manifests.yaml"
    mapfile -t said < <(each "$at" '{kind: {{.kind}}, name: "{{.metadata.name}}"}{{"\n"}}')
    {
        cat "$at/manifests.yaml" && echo ---
        without "$current" "{labelSelector: \"$(of_these)\"}" "${said[@]}"
    } >"$scratch/manifests.yaml"
}

# The present deployment, with something else said of those of --workers.
change_present() { # FUNCTION
    need_cluster
    need_present
    choose "$current"
    begin
    changed "$1" "$current" >"$folder/manifests.yaml"
    deploy_or_return "$folder" "${these[@]}"
}

kubernetes_update() { change_present with_new_tag; }

kubernetes_scale() {
    ! everything || wrong "--action scale needs --workers: whom?"
    change_present with_new_replicas
}

kubernetes_rollback() {
    need_cluster
    roll_back
}

of_these() { echo "$OURS in ($(IFS=, && echo "${these[*]}"))"; }

apply() { # FOLDER SELECTOR: what it has of that
    run "${kube[@]}" apply --server-side --force-conflicts --field-manager deploy.sh --filename "$1/manifests.yaml" --selector "$2"
}

apply_common() { apply "$1" "$OURS notin ($(IFS=, && echo "${ORDER[*]}"))"; } # FOLDER: what is no service's alone

# The secret, and what a worker finds there; then from inside an image whether tables, addresses and keys are right. No worker
# has been touched by then.
kubernetes_prepare() { # FOLDER SERVICE...
    local folder=$1 name
    shift
    settle "$folder"
    need_secret "$folder" && apply_common "$folder" || return 1
    for name in "$@"; do
        [[ $name != beat && $name != monitor ]] || continue
        check_from_inside "$folder" "$name"
        return
    done
}

kubernetes_common() { settle "$1" && apply_common "$1"; } # FOLDER

pods_of() { "${here[@]}" get pods --selector "$OURS in ($1)" --output 'jsonpath={.items[*].metadata.name}'; } # SERVICE[,SERVICE]...

# Whether a pod that was not there before will not become ready by itself: it is not waited for.
hopeless() { # SERVICE PODS
    local pod reason what waiting
    waiting="{{range .items}}{{\$pod := .metadata.name}}{{range .status.containerStatuses}}{{with .state.waiting}}"
    waiting+="{{\$pod}} {{.reason}} {{.message}}{{\"\\n\"}}{{end}}{{end}}{{end}}"
    while read -r pod reason what; do
        [[ " $2 " != *" $pod "* && $reason =~ $HOPELESS ]] || continue
        say "$1: $pod is in $reason. $what"
        "${here[@]}" logs "$pod" --tail 20 >&2 || true
        return 0
    done < <("${here[@]}" get pods --selector "$OURS=$1" --output "go-template=$waiting")
    return 1
}

# One service after the other, each of which must be ready before the next. What is nobody's alone has been applied by then.
kubernetes_roll_out() { # FOLDER SERVICE...
    local folder=$1 name before
    shift
    for name in $(ours_in "$folder"); do
        [[ " $* " == *" $name "* ]] || continue
        say "$name: $(image_in "$folder" "$name")"
        before=$(pods_of "$name") || return 1
        apply "$folder" "$OURS=$name" || return 1
        $dry_run || kubernetes_await "$folder" "$name" "$before" || return 1
    done
    retire "$folder" || say "not all that is deployed no more could be deleted; the next deployment tries again"
}

# Until the pods of a service are those that are meant, and ready, which for a worker means that it consumes; or until the
# cluster says that nothing moves.
kubernetes_await() { # FOLDER SERVICE PODS-BEFORE
    local least said ready until=$((SECONDS + ROLL_OUT_SECONDS))
    least=$(least_in "$1" "$2")
    while ((SECONDS < until)); do
        said=$("${here[@]}" rollout status "deployment/$2" --watch=false) || break
        ready=$("${here[@]}" get deployment "$2" --output 'jsonpath={.status.readyReplicas}') || break
        # An autoscaler that was paused at none needs its time to begin.
        if [[ $said == *'successfully rolled out'* ]] && ((${ready:-0} >= ${least:-1})); then
            say "$2: ${ready:-0} ready"
            return 0
        fi
        ! hopeless "$2" "$3" || return 1
        sleep 0.5
    done
    say "$2 did not become ready: $said"
    "${here[@]}" get pods --selector "$OURS=$2" >&2 || true
    return 1
}

# What is in the file no more, since the overlay has lost a component, say; and settings that nobody has any more.
retire() { # [FOLDER]
    local names
    mapfile -t names < <(comm -23 <(names_in "$records"/[0-9]*) <(names_in "$@"))
    ((!${#names[@]})) || run "${here[@]}" delete --ignore-not-found "${names[@]}"
}

kubernetes_status() {
    local kinds=deployments,pods
    need_cluster
    show_records
    [[ $current ]] || current=$(newest)
    [[ -d $current ]] || return 0
    settle "$current"
    [[ ! $(each "$current" '{{if eq .kind "ScaledObject"}}there{{end}}') ]] || kinds=deployments,scaledobjects,pods
    "${here[@]}" get "$kinds" --selector app.kubernetes.io/part-of=unstract-workers
}

kubernetes_logs() {
    need_cluster
    need_present
    choose "$current"
    settle "$current"
    "${here[@]}" logs --selector "$(of_these)" --tail 100 --prefix --follow --max-log-requests 100
}

# Who sends what is scheduled first; then all others at once, each of which ends or gives back what it is at.
kubernetes_stop() {
    # shellcheck disable=SC2034 # with_new_replicas reads it
    replicas=0
    need_cluster
    need_present
    choose "$current"
    settle "$current"
    mkdir "$scratch/stopped"
    changed with_new_replicas "$current" >"$scratch/stopped/manifests.yaml"
    [[ " ${these[*]} " != *' beat '* ]] || drain beat
    drain "$(IFS=, && echo "${these[*]}")"
}

drain() { # SERVICE[,SERVICE]...
    local left until=$((SECONDS + GRACE_SECONDS + 60))
    apply "$scratch/stopped" "$OURS in ($1)"
    ! $dry_run || return 0
    say "stopping $1"
    while left=$(pods_of "$1") || fail "the cluster does not say what is left"; [[ $left ]]; do
        ((SECONDS < until)) || fail "still there, after their grace: $left"
        sleep 0.5
    done
}

kubernetes_remove() {
    kubernetes_stop
    if ! everything; then
        run "${here[@]}" delete --ignore-not-found --filename "$current/manifests.yaml" --selector "$(of_these)"
        return 0
    fi
    retire || fail "not all could be deleted; what was deployed stands in $records/*/manifests.yaml"
    run rm -rf "$records"
    $dry_run || say "removed; kept: the namespace $namespace, and in it the secret workers-secrets, which is yours"
}
