"""A stand-in for the API server of Kubernetes and for what is behind it: enough for kubectl and scripts/deploy.sh.

It is no Kubernetes. It keeps whatever it is given, checks nothing, and gives nobody a pod. What the controllers and
KEDA would do is done here in a few lines, when somebody looks, by the tag of an image: one with `broken` ends again and
again, one with `missing` cannot be pulled, one with `stuck` makes no progress, and of one with `unfit` the Job fails.
All others are ready a moment after they came.
"""

import copy
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name

MOMENT = 0.05
# Group and version, plural, kind, whether it is in a namespace.
KINDS = (
    ("v1", "namespaces", "Namespace", False),
    ("v1", "pods", "Pod", True),
    ("v1", "secrets", "Secret", True),
    ("v1", "configmaps", "ConfigMap", True),
    ("v1", "services", "Service", True),
    ("v1", "serviceaccounts", "ServiceAccount", True),
    ("apps/v1", "deployments", "Deployment", True),
    ("batch/v1", "jobs", "Job", True),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", True),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True),
    ("keda.sh/v1alpha1", "scaledobjects", "ScaledObject", True),
    ("monitoring.coreos.com/v1", "podmonitors", "PodMonitor", True),
    ("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule", True),
)
VERSIONS = sorted({version for version, *_ in KINDS})
WAITING = {"broken": "CrashLoopBackOff", "missing": "ImagePullBackOff"}
PAUSED = "autoscaling.keda.sh/paused-replicas"


def merged(live: Any, before: Any, applied: Any) -> Any:
    """Server-side apply, of one manager: what it said before and says no more is gone. Lists are one thing here."""
    if not (isinstance(live, dict) and isinstance(applied, dict)):
        return applied
    said = before if isinstance(before, dict) else {}
    kept = {key: value for key, value in live.items() if key in applied or key not in said}
    return kept | {key: merged(live.get(key), said.get(key), value) for key, value in applied.items()}


def selected(each: Object, selector: str) -> bool:
    """Whether a selector finds it: `a=b` or `a in (b,c)`, commas between them."""
    labels = each["metadata"].get("labels", {})
    for key, one, many in re.findall(r"([\w./-]+)(?:=([\w.-]+)| in \(([^)]*)\))", selector):
        if labels.get(key) not in (many.split(",") if many else [one]):
            return False
    return True


class Cluster:
    """The objects, and what becomes of them. `requests` are all that came, `told` what happened to deployments.

    `jobs` and `policies` are those that there were, for they are taken away again.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.applied: dict[Key, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.jobs: list[Object] = []
        self.policies: list[Object] = []
        self._due: dict[Key, float] = {}
        self._lock = threading.RLock()
        self._count = 0

    @property
    def written(self) -> list[tuple[str, str]]:
        """The requests that would change anything."""
        return [(method, path) for method, path in self.requests if method != "GET"]

    def named(self, plural: str) -> dict[str, Object]:
        """The objects of a kind by name."""
        return {name: each for (kind, _, name), each in self.objects.items() if kind == plural}

    def images(self) -> dict[str, str]:
        """What each Deployment runs."""
        return {name: image_of(each) for name, each in self.named("deployments").items()}

    def put(self, key: Key, body: Object) -> Object:
        """Keep an object that nobody applied."""
        _, namespace, name = key
        self._count += 1
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "uid": f"uid-{self._count}"}
        body["metadata"] = body.get("metadata", {}) | metadata | {"resourceVersion": str(self._count)}
        self.objects[key] = body
        return body

    def apply(self, key: Key, body: Object) -> Object:
        """Server-side apply."""
        with self._lock:
            live = self.objects.get(key, {})
            found: Object = copy.deepcopy(merged(live, self.applied.get(key), body))
            self.applied[key] = body
            changed = found.get("spec") != live.get("spec")
            self.put(key, found)
            if changed:
                found["metadata"]["generation"] = live.get("metadata", {}).get("generation", 0) + 1
            if key[0] == "scaledobjects":
                self._due[key] = time.monotonic() + 10 * MOMENT  # KEDA takes its time
            elif changed and key[0] in {"deployments", "jobs"}:
                self._due[key] = time.monotonic() + MOMENT
            if key[0] == "deployments":
                self.told.append(f"apply {key[2]}")
                found["spec"].setdefault("replicas", 1)
            elif key[0] == "jobs":
                self.jobs.append(found)
            elif key[0] == "networkpolicies" and key[2] == "check":
                self.policies.append(found)
            return found

    def delete(self, key: Key) -> Object | None:
        """Take it away, and what it made."""
        with self._lock:
            self.applied.pop(key, None)
            for each in [each for each in self.objects if each[0] == "pods" and each[2].startswith(f"{key[2]}-")]:
                if key[0] in {"deployments", "jobs"}:
                    del self.objects[each]
            return self.objects.pop(key, None)

    def look(self, name: str, selector: str) -> None:
        """Somebody asks for a name, or by a selector: what the controllers have done to these by now.

        Nothing is ready unless it is looked at: who does not wait finds it as it was.
        """
        with self._lock:
            for key in [key for key, due in self._due.items() if time.monotonic() >= due and key in self.objects]:
                if key[2] == name or (not name and selected(self.objects[key], selector)):
                    del self._due[key]
                    does = {"deployments": self._deployed, "jobs": self._worked, "scaledobjects": self._scaled}
                    does[key[0]](key, self.objects[key])

    def _scaled(self, key: Key, scaled: Object) -> None:
        """KEDA: the number at which it is paused, or at least the fewest."""
        target = ("deployments", key[1], scaled["spec"]["scaleTargetRef"]["name"])
        spec = self.objects[target]["spec"]
        paused = scaled["metadata"].get("annotations", {}).get(PAUSED)
        wanted = max(spec["replicas"], scaled["spec"]["minReplicaCount"]) if paused is None else int(paused)
        if wanted != spec["replicas"]:
            spec["replicas"] = wanted
            self._due[target] = time.monotonic() + MOMENT

    def _deployed(self, key: Key, deployment: Object) -> None:
        wanted, image = deployment["spec"]["replicas"], image_of(deployment)
        generation = deployment["metadata"]["generation"]
        status = {"observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted}
        if wanted and any(word in image for word in (*WAITING, "stuck")):
            self._pods(key, deployment, f"{key[2]}-{generation}", 1, keep=True)
            stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
            deployment["status"] = status | {"updatedReplicas": 1, "conditions": [stuck] * ("stuck" in image)}
            return
        self._pods(key, deployment, f"{key[2]}-{generation}", wanted, keep=False)
        deployment["status"] = status | {"readyReplicas": wanted, "availableReplicas": wanted}
        self.told.append(f"ready {key[2]}")

    def _worked(self, key: Key, job: Object) -> None:
        image = image_of(job)
        self._pods(key, job, f"{key[2]}-pod", 1, keep=False)
        if "missing" not in image:
            kind = "Failed" if "unfit" in image else "Complete"
            job["status"] = {"conditions": [{"type": kind, "status": "True"}]}

    def _pods(self, key: Key, owner: Object, prefix: str, count: int, *, keep: bool) -> None:
        for each in [each for each in self.objects if each[0] == "pods" and each[2].startswith(f"{key[2]}-")]:
            if not keep:
                del self.objects[each]
        image = image_of(owner)
        # What the check runs is not what the image is broken at.
        reasons = [why for word, why in WAITING.items() if word in image and (word, key[0]) != ("broken", "jobs")]
        state = {"waiting": {"reason": reasons[0], "message": f"of {image}"}} if reasons else {"running": {}}
        for number in range(count):
            pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(owner["spec"]["template"])}
            pod["status"] = {"containerStatuses": [{"name": pod["spec"]["containers"][0]["name"], "state": state}]}
            self.put(("pods", key[1], f"{prefix}-{number}"), pod)


def named(query: dict[str, str]) -> str:
    """The one name that a list is asked for, if it is."""
    return query.get("fieldSelector", "").removeprefix("metadata.name=")


def image_of(owner: Object) -> str:
    """What its pods run."""
    return str(owner["spec"]["template"]["spec"]["containers"][0]["image"])


PATH = re.compile(
    r"/apis?/(?P<version>v1|[\w.]+/\w+)(?:/namespaces/(?P<namespace>[\w-]+)(?=/))?/(?P<plural>\w+)(?:/(?P<name>[\w.-]+))?(?P<log>/log)?"
)


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer takes 40 ms

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""

    def _say(self, body: Object | str | None, status: int = 200) -> None:
        if body is None:
            body, status = (
                {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404},
                404,
            )
            body["message"] = f"{self.path} not found"
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _asked(self) -> tuple[str, Key, dict[str, str]]:
        """The path, the object or kind that is meant, and the parameters."""
        parts = urlsplit(self.path)
        found = PATH.fullmatch(parts.path)
        key = (found["plural"], found["namespace"] or "", found["name"] or "") if found else ("", "", "")
        self.cluster.requests.append((self.command, parts.path))
        return parts.path, key, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def do_GET(self) -> None:
        """An object, a list of them, a watch, a log, or what there is to ask for."""
        path, key, query = self._asked()
        self.cluster.look(key[2] or named(query), query.get("labelSelector", ""))
        fixed = discovery().get(path)
        if fixed is not None:
            self._say(fixed)
        elif path.endswith("/log"):
            self._say(f"the log of {key[2]}\n" if key in self.cluster.objects else None)
        elif key[2]:
            self._say(self.cluster.objects.get(key))
        elif "watch" in query:
            self._watch()
        else:
            self._list(key, query)

    def _found(self, key: Key, query: dict[str, str]) -> list[Object]:
        name = named(query)
        return [
            each
            for (plural, namespace, own), each in list(self.cluster.objects.items())
            if (plural, namespace) == key[:2]
            and (not name or own == name)
            and selected(each, query.get("labelSelector", ""))
        ]

    def _list(self, key: Key, query: dict[str, str]) -> None:
        (version, kind), *_ = [(version, kind) for version, plural, kind, _ in KINDS if plural == key[0]] or [("", "")]
        items = self._found(key, query)
        body = {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}
        self._say(body if kind else None)

    def _watch(self) -> None:
        """Nothing happens while somebody looks; the watch ends, and who wants more asks again."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        time.sleep(MOMENT)

    def do_PATCH(self) -> None:
        """Server-side apply, which is all that is patched here."""
        _, key, _ = self._asked()
        assert self.headers["Content-Type"] == "application/apply-patch+yaml", self.headers["Content-Type"]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(self.cluster.apply(key, body))

    def do_DELETE(self) -> None:
        """Gone at once."""
        _, key, _ = self._asked()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        gone = self.cluster.delete(key)
        self._say(
            gone
            and {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"uid": gone["metadata"]["uid"]}}
        )


def discovery() -> dict[str, Object]:
    """What kubectl asks first: which kinds there are, and that fields are checked by the server."""
    verbs = ["get", "list", "watch", "patch", "delete"]
    pages: dict[str, Object] = {"/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}}
    pages["/api"] = {"kind": "APIVersions", "versions": ["v1"]}
    groups = [version.split("/") for version in VERSIONS if "/" in version]
    described = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in groups]
    pages["/apis"] = {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [one], "preferredVersion": one}
            for (group, _), one in zip(groups, described, strict=True)
        ],
    }
    roots = {version: f"/apis/{version}" if "/" in version else f"/api/{version}" for version in VERSIONS}
    pages["/openapi/v3"] = {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in roots.values()}}
    for version, root in roots.items():
        resources, paths = [], {}
        for _, plural, kind, namespaced in (each for each in KINDS if each[0] == version):
            resources.append(
                {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": verbs}
            )
            group, _, number = version.rpartition("/")
            told = {"group": group, "version": number, "kind": kind}
            checked = [{"name": "fieldValidation", "in": "query"}]
            paths[f"{root}/{plural}/{{name}}"] = {
                "patch": {"parameters": checked, "x-kubernetes-group-version-kind": told}
            }
        pages[root] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        pages[f"/openapi/v3{root}"] = {
            "openapi": "3.0.0",
            "info": {"title": "a stand-in", "version": "1"},
            "paths": paths,
        }
    return pages


@contextmanager
def api_server() -> Iterator[tuple[Cluster, str]]:
    """A cluster and the address of its API server."""
    cluster = Cluster()
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield cluster, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
