"""The chart, rendered by the real helm with each value set of its `ci/` folder."""

import functools
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "usage-analytics"
HELM = ROOT / ".local" / "deploy-tools" / "helm" / "helm"
CRDS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")
VALUE_SETS = sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml"))


def helm(value_set: str, *more: str, crds: bool = True):
    """What helm says of a value set, with `--set` for each of `more`."""
    command = [HELM, "template", "demo", CHART, "--namespace", "usage", "--values", CHART / "ci" / f"{value_set}-values.yaml"]
    for version in CRDS if crds else ():
        command += ["--api-versions", version]
    for assignment in more:
        command += ["--set", assignment]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def objects(value_set: str, *more: str, crds: bool = True) -> tuple[dict, ...]:
    """Its objects."""
    said = helm(value_set, *more, crds=crds)
    assert said.returncode == 0, said.stderr
    return tuple(each for each in yaml.safe_load_all(said.stdout) if each)


def of_kind(rendered, kind: str, name_end: str = "") -> list[dict]:
    return [each for each in rendered if each["kind"] == kind and each["metadata"]["name"].endswith(name_end)]


def pod_spec(each: dict) -> dict | None:
    """The pod of an object that makes pods."""
    match each["kind"]:
        case "Deployment" | "Job":
            return each["spec"]["template"]["spec"]
        case "CronJob":
            return each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return None


def is_dev_server(each: dict) -> bool:
    return each["metadata"]["labels"]["app.kubernetes.io/component"].startswith("dev")
