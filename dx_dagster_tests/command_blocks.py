"""The command blocks of README and docs: which lines a test runs as written, and why the others are not run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s{2,}#.*$")
# Examples in commands.md come from the commands' docstrings. They assume an installed command and another state each.
_EXAMPLES = "commands.md"

IN_THE_DEMO = (
    'eval "$(DX_HOME=.dx/demo .venv/bin/dx-dagster env)"',
    'psql "$DX_DATABASE_URL"',
    ".venv/bin/python examples/cycle_time.py cycle-time.svg",
    ".venv/bin/dx-dagster status",
    ".venv/bin/dx-dagster env --database",
    ".venv/bin/dx-dagster people list",
    ".venv/bin/dx-dagster people list --json",
    ".venv/bin/dx-dagster webhooks install acme",
    ".venv/bin/dx-dagster webhooks status acme",
    ".venv/bin/dx-dagster api-keys create laptop",
    ".venv/bin/dx-dagster credentials rekey",
    ".venv/bin/dx-dagster sync acme",
    ".venv/bin/dx-dagster backup dx.dump",
    "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'",
)
"""Lines for the second terminal of a demo, in an order in which each works."""

WITH_A_TOKEN = (
    ".venv/bin/dx-dagster connect acme",
    '.venv/bin/dx-dagster credentials add acme --label "second token"',
)
"""Likewise, with the sandbox's token in BITBUCKET_TOKEN, which these lines otherwise ask for."""

STARTS = ("make demo", "make venv")

NOT_RUN = {
    ".venv/bin/dx-dagster up": "cli/test_install.py starts it",
    ".venv/bin/dx-dagster up --database-port 5432": "likewise, the demo with another port",
    "DX_HOME=.dx-restored .venv/bin/dx-dagster restore dx.dump": "cli/test_backup.py: it would leave a home behind",
    "/opt/dx-dagster/bin/pip install --no-deps --require-hashes -r deploy/requirements.lock": (
        "a machine of the reader's"
    ),
    "python3 -m venv /opt/dx-dagster": "likewise",
    "/opt/dx-dagster/bin/pip install --no-deps .": "likewise",
    "useradd --system --home-dir /var/lib/dx-dagster dx-dagster": "likewise",
    "cp deploy/dx-dagster.service /etc/systemd/system/": "likewise",
    "systemctl daemon-reload": "likewise",
    "systemctl enable --now dx-dagster": "likewise",
    "cp deploy/dx-dagster-worker.service /etc/systemd/system/": "likewise",
    "systemctl enable --now dx-dagster-worker": "likewise",
    "systemd-run --pty --uid dx-dagster -p EnvironmentFile=-/etc/dx-dagster.env -E DX_HOME=/var/lib/dx-dagster "
    "/opt/dx-dagster/bin/dx-dagster connect acme": "likewise",
    "docker compose -f deploy/compose.yaml up --build --detach": "likewise",
    "docker compose -f deploy/compose.yaml --profile grafana up --detach": "likewise",
    "docker compose -f deploy/compose.yaml run --rm -T api api-keys create prometheus > deploy/metrics.key": "likewise",
    "docker compose -f deploy/compose.yaml exec database psql --username dx": "likewise",
    "docker compose -f deploy/compose.yaml run --rm api connect acme": "likewise",
    "docker compose -f deploy/compose.yaml run --rm api api-keys create me": "likewise",
    "docker compose -f deploy/compose.yaml --profile celery up --build --detach": "likewise",
    "docker build -f deploy/Dockerfile --target chart -t registry.example.com/dx-dagster-chart .": "likewise",
    "kubectl create secret generic dx-dagster --from-literal=DX_DATABASE_URL=… --from-literal=DX_SECRET_KEYS=…": (
        "a cluster of the reader's"
    ),
    "kubectl apply -f deploy/kubernetes.yaml": "likewise",
    "helm upgrade --install dagster dagster/dagster --version 1.13.27 -f deploy/helm-values.yaml": "likewise",
    "helm repo add dagster https://dagster-io.github.io/helm": "likewise",
    "helm template dagster dagster/dagster --version 1.13.27 -f deploy/helm-values.yaml > chart.yaml": "likewise",
    "kubeconform -strict -summary chart.yaml": "likewise",
    "kubectl exec -it deploy/dx-dagster-api -- dx-dagster connect acme": "likewise",
    "pip install dx-dagster": "assets/test_component.py uses the wheel's content",
    "pipx run --spec dist/dx_dagster-0.1.0-py3-none-any.whl dx-dagster demo": "it installs all packages anew",
    "uv tool run --from dist/dx_dagster-0.1.0-py3-none-any.whl dx-dagster demo": "likewise",
    "dg list components": "assets/test_component.py, in a project of its own",
    "dg scaffold defs dx_dagster.BitbucketWorkspaces bitbucket_cloud": "likewise",
    "dg check defs": "likewise",
    "dx-dagster migrate": "on a database of the reader's",
    "dx-dagster connect acme": "likewise",
    "make test": "it would run this test again",
    "make lint": "CI runs it beside the tests",
    "export DX_DATABASE_URL=postgresql://dx:PASSWORD@db.example.com:5432/dx": "a server of the reader's",
    "export DX_PUBLIC_URL=https://dx.example.com": "an address of the reader's; the demo has its own",
    ".venv/bin/dx-dagster webhooks install acme --repositories": "webhooks/test_hooks.py: 40 hooks would deliver twice",
    "export JIRA_EMAIL=robot@example.com": "a Jira site of the reader's; the demo connects its own",
    ".venv/bin/dx-dagster connect acme --type jira_cloud --jira-url https://acme.atlassian.net": "likewise",
    ".venv/bin/dx-dagster connect acme --type bitbucket_pipelines": "needs a token for pipelines alone",
    'curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/api/connections.list': "needs the port of the API",
    ".venv/bin/dx-dagster people import people.csv": "a file of the reader's",
    ".venv/bin/dx-dagster people link acme/ann ann@acme.example": "a person of the reader's",
    ".venv/bin/dx-dagster people unlink acme/ann": "likewise",
    ".venv/bin/dx-dagster people forget ann@acme.example": "likewise",
    'curl https://dx.example.com/api/users.setUserStatuses -H "Authorization: Bearer $KEY" -H \'Content-Type: '
    "application/json' \\": "an address of the reader's",
    """-d '{"connection_type": "bitbucket", "users": [{"source_id": "{6f0a…}", "status": "bot"}]}'""": "likewise",
    "make bench": "minutes; test_benchmarks.py runs its parts",
    'make bench ARGS="flight"': "likewise",
    'make bench ARGS="compare --pull-requests 500 --only ours --only endpoints"': "likewise",
    'make bench ARGS="scale 2000 20000 --others-up-to 2000"': "likewise",
    'make bench ARGS="killed"': "likewise",
    'make bench ARGS="receive . ../another-checkout"': "likewise",
    'make bench ARGS="deliveries . ../another-checkout --minutes 2"': "likewise",
    'make bench ARGS="unified --pulls 50000"': "likewise",
    'make bench ARGS="storage --minutes 5"': "likewise",
    'make bench ARGS="soak --minutes 30"': "likewise",
    'make bench ARGS="measures --pulls 100000"': "likewise",
    'make bench ARGS="scheduled"': "likewise",
    'make bench ARGS="token --repositories 140 --pulls 10000 --hourly 100"': "likewise",
    'make bench ARGS="runs"': "likewise",
    'make bench ARGS="workers --workspaces 10 --every 20 --sync-every 180"': "likewise",
    'make bench ARGS="all --write"': "likewise",
}


def lines() -> set[str]:
    """Every line of the blocks, without its comment."""
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != _EXAMPLES)]
    blocks = [block for page in pages for block in _BLOCK.findall(page.read_text())]
    return {_COMMENT.sub("", line).strip() for block in blocks for line in block.splitlines() if line.strip()}
