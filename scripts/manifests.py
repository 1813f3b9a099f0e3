#!/usr/bin/env python3
"""Write docker/kubernetes and docker/railway, or see whether they are as the registry says.

`uv run python scripts/manifests.py --help`. What people edit is in docker/kubernetes/overlays, and none of this.
"""

import json
import sys
from pathlib import Path

import click

try:
    import yaml

    from scripts.generated import settle
    from scripts.kubernetes.base import Object, base
    from scripts.kubernetes.components import autoscaling, check_job, prometheus_operator
    from scripts.kubernetes.railway import services
except ModuleNotFoundError as error:
    sys.exit(f"this needs {error.name}, which only a checkout has: uv run python scripts/manifests.py")

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
HEADER = "# Made by scripts/manifests.py from config/workers.py"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(files: dict[str, list[Object]]) -> dict[str, str]:
    texts = {name: yaml.dump_all(files[name], Dumper=_Dumper, sort_keys=False, width=1000) for name in files}
    return {f"{name}.yaml": f"{HEADER}\n---\n{text}" for name, text in texts.items()}


def folders() -> dict[Path, dict[str, str]]:
    """The folders that hold nothing but what is written here: each file, and what is to stand in it."""
    alerts = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())
    return {
        DOCKER / "kubernetes/base": _yaml(base()),
        DOCKER / "kubernetes/components/autoscaling": _yaml(autoscaling()),
        DOCKER / "kubernetes/components/check": _yaml(check_job()),
        DOCKER / "kubernetes/components/prometheus-operator": _yaml(prometheus_operator(alerts)),
        # JSON has no comments.
        DOCKER / "railway": {f"{name}.json": json.dumps(each, indent=2) + "\n" for name, each in services().items()},
    }


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is not as the registry says.")
def main(check: bool) -> None:
    """Write what Kubernetes and Railway are told; delete what no longer belongs to it."""
    files = {folder / name: text for folder, held in folders().items() for name, text in held.items()}
    extra = [path for folder in folders() for path in folder.glob("*") if path not in files]
    settle(files, extra, ROOT, "not as the registry says; uv run python scripts/manifests.py", check=check)


if __name__ == "__main__":
    main()
