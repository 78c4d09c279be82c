#!/usr/bin/env bash
# dagster-k8s 0.29.27: K8sRunLauncher requires `instance_config_map`, "an existing Volume to mount into the pod in order
# to provide a ConfigMap for the Dagster instance".
#
# Expected: the pod of a run has that ConfigMap as DAGSTER_HOME/dagster.yaml.
# Seen: the pod has no volume, and nothing in its Job names the ConfigMap. DAGSTER_HOME is set to a folder that nothing
# makes; the instance is in the arguments of `dagster api execute_run`. What runs in the pod must not look for dagster.yaml
# (dx_dagster/automation/host_settings.py reads it where code is loaded, and says nothing of one that it cannot read).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-k8s==0.29.27 \
  kubernetes==36.0.3
cat > "$folder/run.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version

from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

required = DagsterK8sJobConfig.config_type_run_launcher()["instance_config_map"].is_required
config = DagsterK8sJobConfig(
    job_image="an-image", dagster_home="/opt/dagster/dagster_home", instance_config_map="a-config-map"
)
job = construct_dagster_k8s_job(config, ["dagster", "api", "execute_run", "{}"], "a-run")
pod = ApiClient().sanitize_for_serialization(job)["spec"]["template"]["spec"]
[container] = pod["containers"]
print(f"dagster-k8s {version('dagster-k8s')}, kubernetes {version('kubernetes')}")
print(f"instance_config_map is required: {required}; volumes: {pod['volumes']}; mounts: {container['volumeMounts']}")
print(f"environment: {container['env']}; the Job names the ConfigMap: {'a-config-map' in json.dumps(pod)}")
home = {"name": "DAGSTER_HOME", "value": "/opt/dagster/dagster_home"}
seen = (required, pod["volumes"], container["volumeMounts"], home in container["env"], "a-config-map" in json.dumps(pod))
sys.exit(seen != (True, [], [], True, False))
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
