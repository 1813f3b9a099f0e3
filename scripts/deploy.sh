#!/usr/bin/env bash
# deploy.sh: deploys, scales, updates, rolls back and removes the workers, with Docker compose or on Kubernetes.
#
# Usage: scripts/deploy.sh --environment development|staging|production --action ACTION [OPTION]...
#
# Actions:
#   images    build the images, and print the size of each over its base, its seconds to start, and its installed tree's digest
#   config    print what would be deployed, secrets left in their files
#   deploy    check everything, deploy what the environment's file says, and wait until every worker is ready and consumes
#   update    the same containers with the images of --tag
#   scale     --replicas containers of each of --workers; on Kubernetes an autoscaler of theirs pauses there until the next deploy
#   rollback  return to the deployment before the present one
#   status    what is deployed, and how it is
#   logs      the last lines of the logs, and what follows until Ctrl-C
#   stop      let the workers finish or give back what they are at, and stop them; with all of them, the servers after them
#   remove    stop, and remove containers, networks, volumes with their data, and the records of deployments; on Kubernetes all
#             that was deployed, and neither the namespace nor the secret
#
# Options:
#   --workers LIST    all (unless said), or some of api, general, file, callback, fast, slow, beat, monitor; commas between them
#   --target NAME     compose (unless said) or kubernetes
#   --replicas N      for scale
#   --tag T           of the images; unless said, TAG of the environment's file, or latest; on Kubernetes what the overlay says
#   --dry-run         print every command that would change anything, and change nothing
#   --yes             do not ask; production asks before anything is changed
#   --help            this text
#
# What an environment is stands in docker/ENVIRONMENT.env, a copy of docker/sample.env; that of development is made here, with
# keys of its own, and is everything on one machine. On Kubernetes it is docker/kubernetes/overlays/ENVIRONMENT, and the cluster
# is that of kubectl's current context. Each deployment is written down in .deployments/. One that fails is taken back: the last
# good one is deployed again, and the script ends with 1. One run at a time works on an environment.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment='' action='' target=compose chosen=all replicas='' tag='' dry_run=false yes=false

# shellcheck source=scripts/deploy/common.sh
source "$root/scripts/deploy/common.sh"
# shellcheck source=scripts/deploy/records.sh
source "$root/scripts/deploy/records.sh"
# shellcheck source=scripts/deploy/configuration.sh
source "$root/scripts/deploy/configuration.sh"
# shellcheck source=scripts/deploy/images.sh
source "$root/scripts/deploy/images.sh"
# shellcheck source=scripts/deploy/compose.sh
source "$root/scripts/deploy/compose.sh"
# shellcheck source=scripts/deploy/manifests.sh
source "$root/scripts/deploy/manifests.sh"
# shellcheck source=scripts/deploy/kubernetes_check.sh
source "$root/scripts/deploy/kubernetes_check.sh"
# shellcheck source=scripts/deploy/kubernetes.sh
source "$root/scripts/deploy/kubernetes.sh"

arguments() {
    while (($#)); do
        case $1 in
        --environment | --action | --workers | --target | --replicas | --tag)
            (($# > 1)) || wrong "$1 needs a value"
            case $1 in
            --environment) environment=$2 ;;
            --action) action=$2 ;;
            --workers) chosen=$2 ;;
            --target) target=$2 ;;
            --replicas) replicas=$2 ;;
            --tag) tag=$2 ;;
            esac
            shift 2
            ;;
        --dry-run) dry_run=true && shift ;;
        --yes) yes=true && shift ;;
        -h | --help) usage && exit 0 ;;
        *) wrong "there is no option $1" ;;
        esac
    done
    one_of --environment "$environment" development staging production
    one_of --action "$action" images config deploy update scale rollback status logs stop remove
    one_of --target "$target" compose kubernetes
    [[ $action != scale || $replicas =~ ^[0-9]+$ ]] || wrong "--action scale needs --replicas, a whole number"
    [[ $action == scale || -z $replicas ]] || wrong "--replicas is for --action scale"
    [[ $action != update || $tag ]] || wrong "--action update needs --tag"
    [[ -z $tag || $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || wrong "--tag must be the tag of an image; '$tag' is not"
}

main() {
    arguments "$@"
    read_workers
    prepare_records
    case $action in
    images | config | status | logs) ;;
    *) ask && hold_lock ;;
    esac
    configure
    case $action in
    images) build_images ;;
    *) "${target}_$action" ;;
    esac
}

main "$@"
