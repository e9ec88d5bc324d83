"""Connecting is checked and planned before anything is changed, and fails early with the ways out."""

import contextlib
import os
import subprocess
import sys

import pytest

from maskloop.errors import LabelConfigError
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS
from maskloop_studio.labelstudio.models import StudioBackend, to_project
from maskloop_studio.projects.connection_plan import BACKEND_TITLE, plan_connection
from maskloop_studio.projects.task_order import SAMPLING, TITLE
from maskloop_studio.services import Services

URL = "http://127.0.0.1:9090"
FRUITS = ("apple", "pear")


def label_config(labels):
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="tag" toName="image">{inside}</BrushLabels></View>'
    )


class ReadOnlyStudio:
    """One project of Label Studio; it has no method that changes anything."""

    def __init__(self, labels, *, sampling="Sequential sampling", backends=(), tabs=()):
        self.labels, self.sampling, self.tabs = labels, sampling, tabs
        self.registered = list(backends)

    def project(self, project_id):
        raw = {"id": project_id, "title": "mine", "sampling": self.sampling}
        return to_project(raw | {"label_config": label_config(self.labels)})

    def backends(self, _project_id):
        return self.registered

    def webhooks(self, _project_id):
        return []

    def views(self, _project_id):
        return [{"id": 1, "data": tab} for tab in self.tabs]

    def count_tasks(self, _project_id, *, only_unlabelled):
        return 18 if only_unlabelled else 20

    def close(self):
        pass


@pytest.fixture
def services(settings):
    made = Services(settings)
    yield made
    made.close()


def backend(*, url=URL, is_interactive=True):
    return StudioBackend(
        id=1,
        url=url,
        title=BACKEND_TITLE,
        model_version="",
        state="CO",
        auth_method="NONE",
        is_interactive=is_interactive,
    )


def test_plan_unknown_labels_names_the_three_ways(services):
    services.client = ReadOnlyStudio(FRUITS)
    with pytest.raises(LabelConfigError) as caught:
        plan_connection(7, URL, services)
    ways = (
        "MASKLOOP_MODEL",
        "tiny-photos",
        "maskloop models suggest 7",
        "maskloop connect 7 --new-labels",
        "maskloop demo",
    )
    assert [way for way in ways if way not in caught.value.remedy] == []
    assert caught.value.got == "apple, pear"


def test_plan_with_a_model_that_only_tells_objects_names_the_label_config(settings):
    with contextlib.closing(Services(settings.model_copy(update={"model": str(BASE_PHOTOS)}))) as services:
        services.client = ReadOnlyStudio(FRUITS)
        with pytest.raises(LabelConfigError) as caught:
            plan_connection(7, URL, services)
        plan = plan_connection(7, URL, services, new_labels=True)
    for text in (caught.value.remedy, "\n".join(plan.lines())):
        assert 'predicted_values="object"' in text
        assert "MASKLOOP_MODEL" not in text


@pytest.mark.parametrize(
    ("labels", "model", "advised"),
    [
        pytest.param(FRUITS, str(BASE_MODEL), True, id="default model, no label of its"),
        pytest.param(("disc", "apple"), str(BASE_MODEL), False, id="default model, one label of its"),
        pytest.param(FRUITS, str(BASE_ONEFORMER), False, id="chosen model"),
    ],
)
def test_plan_advises_a_start_for_photos_where_the_default_knows_no_label(settings, labels, model, advised):
    with contextlib.closing(Services(settings.model_copy(update={"model": model}))) as services:
        services.client = ReadOnlyStudio(labels)
        plan = plan_connection(7, URL, services, new_labels=True)
    assert ("MASKLOOP_MODEL=tiny-photos" in "\n".join(plan.lines())) is advised


def test_plan_first_run_makes_no_mlflow_database(services, settings):
    services.client = ReadOnlyStudio(FRUITS)
    plan = plan_connection(7, URL, services, new_labels=True)
    assert not settings.registry_file.exists()
    assert (plan.is_new_model, plan.model, plan.matched, plan.unmatched) == (True, settings.model, (), FRUITS)


def test_plan_lists_what_is_added_and_how_many_tasks_follow(services):
    services.client = ReadOnlyStudio(("disc", "apple"))
    plan = plan_connection(7, URL, services)
    assert (plan.matched, plan.unmatched, plan.tasks) == (("disc",), ("apple",), 18)
    text = "\n".join(plan.lines())
    for words in (
        f"{BACKEND_TITLE} at {URL}: added",
        "interactive preannotations (smart tools call the model): switched on",
        f"Sequential sampling -> {SAMPLING}",
        f'"{TITLE}" added',
        "labels it has to learn: apple",
        "18 tasks",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("labels", "named", "words"),
    [
        pytest.param(("disc", "leftHand", "rightHand"), None, ['"leftHand" and "rightHand"'], id="sure"),
        pytest.param(
            ("disc", "FL wheel", "FR wheel"),
            None,
            ["by an abbreviation only", "MASKLOOP_MIRROR_PAIRS"],
            id="unsure",
        ),
        pytest.param(("disc", "linke Hand"), None, ['no label is the mirror of "linke Hand"'], id="alone"),
        pytest.param(("disc", "a", "b"), (("a", "b"),), ['as set: "a" and "b"'], id="set"),
        pytest.param(("disc", "square"), None, [], id="none"),
    ],
)
def test_plan_names_labels_that_swap_in_a_mirror(settings, labels, named, words):
    with contextlib.closing(Services(settings.model_copy(update={"mirror_pairs": named}))) as services:
        services.client = ReadOnlyStudio(labels)
        plan = plan_connection(7, URL, services)
    assert [word for word in words if word not in "\n".join(plan.lines())] == []
    assert bool(plan.mirrored) is bool(words)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param([backend()], [], id="connected"),
        pytest.param([backend(is_interactive=False)], ["interactive preannotations"], id="not interactive"),
        pytest.param([], [f"at {URL}: added", "interactive preannotations"], id="none"),
    ],
)
def test_plan_again_lists_only_what_differs(services, found, words):
    tab = {"title": TITLE, "ordering": ["tasks:predictions_score"]}
    services.client = ReadOnlyStudio(("disc",), sampling=SAMPLING, backends=found, tabs=[tab])
    changes = plan_connection(7, URL, services).changes
    assert len(changes) == len(words)
    assert all(word in change for word, change in zip(words, changes, strict=True))


def test_plan_imports_neither_torch_nor_mlflow():
    code = (
        "import sys, maskloop_studio.projects.connection_plan as plan\n"
        "print([name for name in ('torch', 'mlflow', 'transformers') if name in sys.modules])"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
