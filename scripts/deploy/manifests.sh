# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the variables of deploy.sh
# What is deployed on Kubernetes: FOLDER/manifests.yaml. It is read and changed by kubectl, and no cluster is asked.

# The label by which all that belongs to a service is found.
OURS=app.kubernetes.io/name
# The annotation by which KEDA leaves a number of replicas alone.
PAUSED=autoscaling.keda.sh/paused-replicas

objects() { # FOLDER OUTPUT: of every object in its file; no server is asked
    kubectl patch --local --filename "$1/manifests.yaml" --type merge --patch '{}' --output "$2"
}

each() { objects "$1" "go-template=$2"; } # FOLDER TEMPLATE

of() { # FOLDER KIND NAME TEMPLATE: of that object, if it is in the file
    each "$1" "{{if and (eq .kind \"$2\") (eq .metadata.name \"$3\")}}$4{{end}}"
}

kubernetes_services() { each "$1" '{{if eq .kind "Deployment"}}{{.metadata.name}}{{"\n"}}{{end}}'; } # FOLDER

image_in() { # FOLDER SERVICE
    of "$1" Deployment "$2" "{{range .spec.template.spec.containers}}{{if eq .name \"$2\"}}{{.image}}{{end}}{{end}}"
}

# With an autoscaler it is that which says so.
least_in() { # FOLDER SERVICE: replicas that there are at least
    local paused='{{with .metadata.annotations}}{{with index . "'$PAUSED'"}}{{.}} {{end}}{{end}}'
    {
        of "$1" ScaledObject "$2" "$paused{{.spec.minReplicaCount}}{{\"\\n\"}}"
        of "$1" Deployment "$2" '{{.spec.replicas}}'
        echo
    } | sed -n 's/^\([0-9]\{1,\}\).*/\1/p' | sed -n 1p
}

# A kustomization from standard input, on top of what is in a folder; the outcome goes to standard output.
upon() { # FOLDER [COMPONENT]
    local at
    at=$(mktemp -d "$scratch/XXXXXX")
    cp "$1/manifests.yaml" "$at"
    [[ ! ${2-} ]] || cp -R "$root/docker/kubernetes/components/$2" "$at"
    { printf 'resources: [manifests.yaml]\ncomponents: [%s]\n' "${2-}" && cat; } >"$at/kustomization.yaml"
    kubectl kustomize "$at"
}

merge() { # SERVICE SPEC: how a kustomization says that this is merged into a Deployment's
    echo "- {target: {kind: Deployment, name: $1}, patch: '{apiVersion: apps/v1, kind: Deployment, metadata: {name: $1}, spec: $2}'}"
}

without() { # FOLDER TARGET...: what is in a folder, but for what the targets find
    local folder=$1
    shift
    {
        echo patches:
        printf -- "- {target: %s, patch: '{\$patch: delete, apiVersion: v1, kind: Any, metadata: {name: any}}'}\n" "$@"
    } | upon "$folder"
}

with_new_tag() { # FOLDER SERVICE
    local was
    was=$(image_in "$1" "$2")
    was=${was%@*}
    [[ ${was##*/} != *:* ]] || was=${was%:*}
    merge "$2" "{template: {spec: {containers: [{name: $2, image: \"$was:$tag\"}]}}}"
}

# An autoscaler would not leave it at that: it is told to pause at so many.
with_new_replicas() { # FOLDER SERVICE
    if [[ $(of "$1" ScaledObject "$2" there) ]]; then
        echo "- target: {kind: ScaledObject, name: $2}"
        echo "  patch: '{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, metadata: {name: $2, annotations: {$PAUSED: \"$replicas\"}}}'"
    else
        merge "$2" "{replicas: $replicas}"
    fi
}

changed() { # FUNCTION FOLDER: with what the function says of each of --workers
    local name
    { echo patches: && for name in "${these[@]}"; do "$1" "$2" "$name"; done; } | upon "$2"
}

names_in() { # FOLDER...: all that was deployed, but for namespaces, in which the secret is
    local folder
    for folder in "$@"; do
        [[ ! -s $folder/manifests.yaml ]] || objects "$folder" name
    done | grep -v '^namespace/' | sort -u
}
