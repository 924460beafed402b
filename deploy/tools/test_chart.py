"""The chart: every value set renders, every object is valid, and all of them keep the policies."""

import json
import re
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

import crds
import values_table
from rendering import CHART, HELM, ROOT, VALUE_SETS, helm, is_dev_server, objects, of_kind, pod_spec

# The oldest that the chart takes, and the newest that the tool knows.
KUBERNETES = ("1.27", kubernetes_validate.latest_version())


@pytest.mark.parametrize("with_crds", [True, False])
@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_objects_are_valid(value_set, with_crds):
    for each in objects(value_set, crds=with_crds):
        if each["kind"] in crds.VERSIONS:
            jsonschema.validate(each, crds.schema(each["kind"]))
        else:
            for version in KUBERNETES:
                kubernetes_validate.validate(each, version, strict=True)


def test_a_field_that_nobody_knows_is_seen():
    worker = of_kind(objects("minimal"), "Deployment", "worker")[0]
    broken = json.loads(json.dumps(worker))
    broken["spec"]["template"]["spec"]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.utils.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[0], strict=True)


def pods(value_set):
    return [(each, pod_spec(each)) for each in objects(value_set) if pod_spec(each)]


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_pods_are_confined(value_set):
    for each, pod in pods(value_set):
        name = each["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, name
            assert own.get("readOnlyRootFilesystem") is True or is_dev_server(each), name
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() and "memory" in resources["limits"], name
            tag = container["image"].rpartition(":")[2]
            assert "/" not in tag and tag not in ("", "latest"), name
            if each["kind"] == "Deployment":
                assert "readinessProbe" in container, name
            if each["kind"] == "Deployment" and not is_dev_server(each):
                assert context["runAsUser"] == 65532, name
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    assert container[probe]["httpGet"]["port"] == "admin", name


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_secrets_are_references(value_set):
    for each in objects(value_set):
        assert each["kind"] != "Secret" or value_set == "dev"
        if each["kind"] == "ConfigMap":
            assert each["metadata"]["name"].startswith("demo-usage-analytics-dashboard-")
    for each, pod in pods(value_set):
        for container in pod["containers"]:
            assert not re.search(r"://[^/]*@", json.dumps(container.get("args", []))), each["metadata"]["name"]
            for variable in container.get("env", []):
                assert not re.search(r"://[^/]*@|[Pp]assword=", variable.get("value", "")), variable["name"]
                if re.fullmatch(r".*DATABASE_URL|RABBITMQ_URL|JWT_SECRET", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_a_secret_in_a_file_is_where_its_variable_says():
    seen = set()
    for each, pod in pods("external-secrets"):
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            items = {
                volume["name"]: volume["secret"]["items"][0] for volume in pod["volumes"] if "secret" in volume
            }
            for variable in container["env"]:
                if variable["name"].endswith("_FILE"):
                    folder, _, file = variable["value"].rpartition("/")
                    assert items[mounts[folder]]["path"] == file, each["metadata"]["name"]
                    seen.add(variable["name"])
                assert "valueFrom" not in variable
    assert seen == {"DATABASE_URL_FILE", "MAINTENANCE_DATABASE_URL_FILE", "RABBITMQ_URL_FILE", "JWT_SECRET_FILE"}


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_only_the_migration_sees_the_owner(value_set):
    owner = {"external-secrets": "owner-url", "dev": "owner"}.get(value_set, "usage-analytics-owner")
    for each, pod in pods(value_set):
        if not is_dev_server(each):
            assert (f'"{owner}"' in json.dumps(pod)) == each["metadata"]["name"].endswith("-migrate")


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_the_service_does_not_carry_the_probes(value_set):
    api = of_kind(objects(value_set), "Service", "usage-analytics-api")[0]
    assert [port["targetPort"] for port in api["spec"]["ports"]] == ["http"]
    assert api["spec"]["type"] == "ClusterIP"
    for each, pod in pods(value_set):
        assert "hostPort" not in json.dumps(pod) and not pod.get("hostNetwork"), each["metadata"]["name"]


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_selectors_select_the_pods_of_their_role_alone(value_set):
    rendered = objects(value_set)
    templates = [each["spec"]["template"] for each in rendered if each["kind"] in ("Deployment", "Job")]
    for each in rendered:
        spec = each.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if not selector or each["kind"] == "CronJob":
            continue
        wanted = selector.get("matchLabels", selector).items()
        selected = [one for one in templates if wanted <= one["metadata"]["labels"].items()]
        roles = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in selected}
        assert len(roles) == 1 or each["metadata"]["name"].endswith("-maintain"), each["metadata"]["name"]


def test_the_migration_comes_first_and_brings_what_it_needs():
    rendered = objects("production")
    job = of_kind(rendered, "Job", "migrate")[0]
    annotations = job["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["argocd.argoproj.io/hook"] == "PreSync"
    for kind in ("ServiceAccount", "NetworkPolicy"):
        before = of_kind(rendered, kind, "migrate")[0]["metadata"]["annotations"]
        assert int(before["helm.sh/hook-weight"]) < int(annotations["helm.sh/hook-weight"])
    assert not of_kind(objects("postgres"), "Job")


def test_autoscalers_are_not_fought():
    scaled = objects("production")
    assert all("replicas" not in each["spec"] for each in of_kind(scaled, "Deployment"))
    assert all(each["spec"]["replicas"] for each in of_kind(objects("postgres"), "Deployment"))
    # Without KEDA's CRDs `auto` leaves it out, and the workers have a number.
    without = objects("minimal", crds=False)
    assert not {"ScaledObject", "PodMonitor", "PrometheusRule"} & {each["kind"] for each in without}
    assert of_kind(without, "Deployment", "worker")[0]["spec"]["replicas"] == 2


def test_the_queue_is_scaled_on_with_what_is_unacknowledged():
    scaled = of_kind(objects("production"), "ScaledObject")[0]["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["protocol"] == "http" and trigger["excludeUnacknowledged"] == "false"
    assert scaled["minReplicaCount"] >= 1 and "fallback" in scaled


def test_sessions_are_added_up():
    worker = of_kind(objects("minimal"), "Deployment", "worker")[0]
    said = worker["metadata"]["annotations"]["usage-analytics/database-connections"]
    assert said == "(6 workers + 1) x (2 lanes + 2) + (3 API pods + 1) x (10 pool + 1) + 8 reserved = 80 of 100"
    assert helm("minimal", "database.maxConnections=80").returncode == 0
    refused = helm("minimal", "database.maxConnections=79")
    assert refused.returncode != 0 and "database.maxConnections is too small" in refused.stderr


BAD = {
    "worker.replicaCount=3": "replicaCount",
    "api.settings.DATABASE_POOLSIZE=3": "DATABASE_POOLSIZE",
    "worker.settings.WRITER_LANES=0": "/worker/settings/WRITER_LANES",
    "api.service.port=70000": "/api/service/port",
    "image.tag=latest": "/image/tag",
    "secrets.as=vault": "/secrets/as",
    "secrets.reader.name=": "/secrets/reader/name",
    "database.flavor=mysql": "/database/flavor",
    "worker.autoscaling.enabled=maybe": "/worker/autoscaling/enabled",
    "worker.autoscaling.minReplicas=9": "worker.autoscaling.minReplicas",
    "worker.autoscaling.fallbackReplicas=9": "worker.autoscaling.fallbackReplicas",
    "api.autoscaling.minReplicas=9": "api.autoscaling.minReplicas",
    "worker.settings.PREFETCH=100": "PREFETCH x CONSUMER_WORKERS",
    "secrets.jwt.name=keys": "secrets.jwt.name and api.settings.JWT_JWKS_URL are both set",
    "api.settings.JWT_JWKS_URL=": "api.settings.JWT_JWKS_URL or secrets.jwt.name must be set",
    "monitoring.podMonitors.interval=often": "/monitoring/podMonitors/interval",
    "migrations.enable=false": "enable",
}


@pytest.mark.parametrize("assignment", BAD)
def test_a_bad_value_is_refused_with_its_path(assignment):
    refused = helm("minimal", assignment)
    assert refused.returncode != 0 and not refused.stdout
    said = refused.stderr.replace("at '/", "/").replace("'", "")
    assert BAD[assignment] in said, refused.stderr


def declared(crate: str) -> set[str]:
    text = (ROOT / "crates" / crate / "src" / "config.rs").read_text()
    return set(re.findall(r'name: "([A-Z_]+)"', text[text.index("KEYS: &[Key]") : text.index("];")]))


def test_settings_of_the_chart_are_those_of_the_services():
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    # What the templates set themselves, from other values.
    own = {"PORT", "ADMIN_PORT", "DATABASE_URL", "MAINTENANCE_DATABASE_URL", "RABBITMQ_URL", "RABBITMQ_CA_FILE",
           "MAINTENANCE_ENABLED", "DATABASE_FLAVOR", "WRITER_ROLE", "READER_ROLE", "JWT_SECRET", "JWT_JWKS_FILE"}
    # The chart mounts no client certificate for the broker.
    own |= {"RABBITMQ_CERT_FILE", "RABBITMQ_KEY_FILE"}
    for role, crate in (("worker", "ingest-worker"), ("api", "analytics-api")):
        settings = schema[role]["properties"]["settings"]["properties"].keys()
        assert settings - {"LOG_LEVEL", "LOG_FORMAT"} == declared(crate) - own, role


def test_values_are_documented_and_closed():
    assert values_table.undocumented() == []
    assert (CHART / "README.md").read_text() == values_table.generated(), "run `make chart-readme`"

    def check(values, schema, path):
        assert schema.get("additionalProperties") is False or not values, path
        for name, value in values.items():
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                check(value, inner, f"{path}.{name}")

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    check(values, json.loads((CHART / "values.schema.json").read_text()), "values")


def test_notes_say_what_to_do_next():
    for value_set in VALUE_SETS:
        said = subprocess.run(
            [HELM, "install", "demo", CHART, "--dry-run=client", "--namespace", "usage",
             "--values", CHART / "ci" / f"{value_set}-values.yaml"],
            capture_output=True, text=True, check=False,
        )
        notes = said.stdout.partition("NOTES:")[2]
        assert "rollout status deployment/demo-usage-analytics-worker" in notes, said.stderr
        assert ("Migrations are off" in notes) == (value_set == "postgres")


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_names_fit(value_set):
    for each in objects(value_set, f"fullnameOverride={'n' * 60}"):
        assert len(each["metadata"]["name"]) <= 63
