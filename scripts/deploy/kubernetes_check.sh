# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables of deploy.sh
# Before anything is deployed on Kubernetes: the secret, and a Job that looks whether a worker would work.

need_secret() { # FOLDER
    local wanted held missing
    mapfile -t wanted < <(sed -n 's|^  [A-Z_]*_FILE: /run/secrets/||p' "$1/manifests.yaml" | sort -u)
    # shellcheck disable=SC2016 # the template's own
    held='{{range $key, $value := .data}}{{if $value}}{{$key}}{{"\n"}}{{end}}{{end}}'
    held=$("${here[@]}" get secret workers-secrets --output "go-template=$held") || true
    missing=$(comm -23 <(printf '%s\n' "${wanted[@]}") <(sort <<<"$held") | paste -s -d ' ')
    [[ $missing ]] || return 0
    say "the secret workers-secrets of the namespace $namespace lacks: $missing. Made of a file of the same name for each key:"
    say "  ${kube[*]} create namespace $namespace"
    say "  ${here[*]} create secret generic workers-secrets ${wanted[*]/#/--from-file=} --dry-run=client -o yaml | ${here[*]} apply -f -"
    return 1
}

# What is checked is the pod that is to be deployed, with all that the overlay gives it: its registry's key, its nodes, its ways
# out. It runs another command, once.
check_from_inside() { # FOLDER SERVICE
    local layout asked ended=0 off=(delete --ignore-not-found --cascade=foreground job/check networkpolicy/check)
    layout=$(ours_in "$1" | grep -vx -e beat -e monitor | tr - _ | paste -s -d ,)
    asked="'routing verify --profiles $layout', check"
    case $(setting TAKEOVER no) in
    no) ;;
    verify) asked+=", '-routing verify --profiles $layout --broker'" ;; # which is shown, and no reason to end
    *) asked+=", 'routing verify --profiles $layout --broker --alone'" ;;
    esac
    mkdir -p "$scratch/check"
    upon "$1" check >"$scratch/check/manifests.yaml" <<END || return 1
namespace: $namespace
patches:
- target: {kind: Deployment, name: $2}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: $2}
    spec:
      template:
        spec:
          restartPolicy: Never
          serviceAccountName: null
          containers:
          - name: $2
            # An image needs no shell.
            command: [python, -c, 'import subprocess, sys; sys.exit(any([subprocess.call(["workers", *said.lstrip("-").split()])
              and said[0] != "-" for said in sys.argv[1:]]))']
            args: [$asked]
            ports: null
            startupProbe: null
            livenessProbe: null
            readinessProbe: null
replacements:
- source: {kind: Deployment, name: $2, fieldPath: spec.template.spec}
  targets: [{select: {kind: Job, name: check}, fieldPaths: [spec.template.spec], options: {create: true}}]
- source: {kind: NetworkPolicy, name: $2, fieldPath: spec.egress}
  targets: [{select: {kind: NetworkPolicy, name: check}, fieldPaths: [spec.egress], options: {create: true}}]
END
    say "checking from inside $(image_in "$1" "$2")"
    # One of a run that was interrupted may be there.
    run "${here[@]}" "${off[@]}" || return 1
    apply "$scratch/check" "$OURS=check" || return 1
    if ! $dry_run; then
        await_check || ended=1
        "${here[@]}" logs --selector "$OURS=check" --tail -1 >&2 || true
    fi
    run "${here[@]}" "${off[@]}" || return 1
    return $ended
}

await_check() {
    local ended until=$((SECONDS + ROLL_OUT_SECONDS))
    while ((SECONDS < until)); do
        ended=$("${here[@]}" get job check --output 'jsonpath={.status.conditions[?(@.status=="True")].type}') || return 1
        [[ $ended != *Complete* ]] || return 0
        [[ $ended != *Failed* ]] && ! hopeless check '' || return 1
        sleep 0.5
    done
    return 1
}
