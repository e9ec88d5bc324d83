"""A real Prometheus reads a real server; every query of the dashboard and of the alerts is run against it."""

import base64
import json
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest
import uvicorn
import yaml
from pydantic import SecretStr
from tests.fakes.looped_project import CONFIG, PROJECT, make_services, png, run_loop
from tests.paths import REPOSITORY
from tests.waiting import until

from maskloop.processes import find_free_port
from maskloop.settings import Settings
from maskloop.store.jobs import JobKind
from maskloop_studio.projects.drift_watch import check_drift
from maskloop_studio.serving.app import create_app

pytestmark = [pytest.mark.skipif(shutil.which("prometheus") is None, reason="install Debian's prometheus")]

DOCKER = REPOSITORY / "docker"
DASHBOARD = json.loads((DOCKER / "grafana" / "maskloop.json").read_text())
RULES = yaml.safe_load((DOCKER / "prometheus" / "maskloop.rules.yaml").read_text())
NAME = re.compile(r"\b(?:maskloop|process)_[a-z_]+")
GRAFANA = {"$__rate_interval": "1m", "$project": ".*"}
PASSWORD = "s3cret"
# What a server on a CPU that nobody has clicked on does not have.
EMPTY_HERE = ("maskloop_gpu_memory_bytes",)


def _queries():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server behind its login, after one training; another runs, a job waits, a worker is silent."""
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        basic_auth_user="maskloop",
        basic_auth_password=SecretStr(PASSWORD),
    )
    services = make_services(settings)
    run_loop(services, trainings=1)
    check_drift(PROJECT, services)
    running = services.store.jobs.request(JobKind.TRAINING, PROJECT, "runs")
    services.store.jobs.claim(running, "host:1:a", lease_s=3600)
    details = {"loss": 1.5, "eta_s": 60.0, "images_per_s": 2.0, "memory_mb": 100.0}
    services.store.jobs.renew(running, "host:1:a", done=3, total=9, details=details, lease_s=3600)
    services.store.jobs.request(JobKind.SYNC, PROJECT, "waits")
    silent = services.store.jobs.request(JobKind.SHARD, PROJECT, "silent")
    services.store.jobs.claim(silent, "host:2:b", lease_s=-1)
    port = find_free_port()
    made = uvicorn.Server(uvicorn.Config(create_app(services), port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: made.started, 60)
    yield f"127.0.0.1:{port}"
    made.should_exit = True
    thread.join()
    services.close()


@pytest.fixture(scope="module")
def prometheus(server, tmp_path_factory):
    """Prometheus as in the containers; only its target, pace and file names are others."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [server]}]
    scrape["basic_auth"]["password_file"] = str(folder / "password")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    scrape["scrape_timeout"] = "1s"
    config["rule_files"] = [str(DOCKER / "prometheus" / "maskloop.rules.yaml")]
    (folder / "password").write_text(PASSWORD)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = find_free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(f"{address}/-/ready"), 60)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def _ask(prometheus, query):
    for name, value in GRAFANA.items():
        query = query.replace(name, value)
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    answer = json.loads(urllib.request.urlopen(url, timeout=30).read())
    assert answer["status"] == "success"
    return answer["data"]["result"]


@pytest.fixture(scope="module")
def scraped(prometheus, server):
    """Prometheus after the server has answered requests between several of its visits."""
    login = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    login.add_password(None, f"http://{server}", "maskloop", PASSWORD)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(login))
    address = "data:image/png;base64," + base64.b64encode(png(201, 48)).decode()
    body = json.dumps(
        {
            "tasks": [{"id": 201, "data": {"image": address}}],
            "project": f"{PROJECT}.1700000000",
            "label_config": CONFIG,
            "params": {},
        }
    ).encode()
    until(lambda: _ask(prometheus, 'up{job="maskloop"} == 1'), 120)
    for _ in range(3):
        request = urllib.request.Request(
            f"http://{server}/predict", body, {"Content-Type": "application/json"}
        )
        assert opener.open(request, timeout=120).status == 200
        before = len(_ask(prometheus, "maskloop_answer_seconds_count[1m]")[0]["values"])
        until(
            lambda before=before: (
                len(_ask(prometheus, "maskloop_answer_seconds_count[1m]")[0]["values"]) > before
            ),
            60,
        )
    # What reads all annotations comes some seconds later.
    until(lambda: _ask(prometheus, "maskloop_corrected_regions"), 60)
    return prometheus


@pytest.mark.parametrize("query", list(_queries()))
def test_query_of_the_dashboard_is_answered(scraped, query):
    found = _ask(scraped, query)
    assert found or any(name in query for name in EMPTY_HERE), "no data"


def test_dashboards_choice_of_projects_is_answered(scraped):
    (variable,) = DASHBOARD["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
    assert [one["metric"][label] for one in _ask(scraped, f"group by ({label}) ({metric})")] == [str(PROJECT)]


def test_rules_are_loaded_and_well_and_ask_for_metrics_that_exist(scraped):
    def groups():
        return json.loads(urllib.request.urlopen(f"{scraped}/api/v1/rules", timeout=30).read())["data"][
            "groups"
        ]

    until(lambda: all(rule["health"] == "ok" for group in groups() for rule in group["rules"]), 60)
    names = json.loads(urllib.request.urlopen(f"{scraped}/api/v1/label/__name__/values", timeout=30).read())
    expressions = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    asked = {name for text in expressions for name in NAME.findall(text)}
    assert asked - set(names["data"]) == set()
    firing = [rule["name"] for group in groups() for rule in group["rules"] if rule["state"] == "firing"]
    assert firing == []


def test_figures_are_those_of_the_loop(scraped):
    (loss,) = _ask(scraped, "maskloop_training_loss")
    assert float(loss["value"][1]) == 1.5
    assert {one["metric"]["release"] for one in _ask(scraped, "maskloop_trainings_ended")} <= {
        "promoted",
        "refused",
        "waiting",
    }
    assert float(_ask(scraped, 'maskloop_answer_seconds_count{kind="prediction"}')[0]["value"][1]) >= 3


@pytest.mark.skipif(shutil.which("promtool") is None, reason="install Debian's prometheus")
def test_configuration_of_the_containers_is_valid(tmp_path):
    text = (DOCKER / "prometheus" / "prometheus.yaml").read_text()
    text = text.replace("/etc/prometheus", str(DOCKER / "prometheus"))
    text = text.replace("/run/prometheus/password", str(tmp_path / "password"))
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "prometheus.yaml").write_text(text)
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
