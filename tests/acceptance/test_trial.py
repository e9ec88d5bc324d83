"""A trial on a real Label Studio: halves under one name, edits count for who drew, the worse version goes."""

import pytest
from pydantic import SecretStr

from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.learning.evaluation.trial import is_old_versions
from maskloop.learning.registry import CHAMPION
from maskloop.segmentation.checkpoint import save_checkpoint
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.testing.memory import MemoryQueue, MemoryRegistry
from maskloop_studio.intake.reconcile import find_changes
from maskloop_studio.projects.champion import promote_version
from maskloop_studio.projects.training import model_name
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.services import Services

pytestmark = [pytest.mark.studio]

EACH_HALF = 12  # tasks: nine decide
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Disc"/></BrushLabels></View>'
)


@pytest.fixture
def services(settings, studio, tmp_path):
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    changes |= {"score_threshold": 0.0, "holdout_fraction": 0.0, "show": "all", "train_after": 1000}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    made.registry = MemoryRegistry(tmp_path / "registry")
    yield made
    made.client.close()
    made.close()


def _work_on_all(services, kind):
    """Do the due jobs of a kind, as workers would."""
    for job in [job for job in services.store.jobs.due() if job.kind is kind]:
        assert work_on(job.job_id, services) is JobStatus.DONE, services.store.jobs.get(job.job_id)


def _make_tasks(project_id, new, make_task):
    """Make tasks until each half has enough: a coin is thrown for each."""
    tasks = []
    while min(sum(is_old_versions(one, new) is half for one in tasks) for half in (True, False)) < EACH_HALF:
        tasks.append(make_task(project_id))
        assert len(tasks) < 100
    return tasks


def test_worse_version_on_trial_is_rolled_back_by_what_annotators_keep(
    services, make_project, make_task, tmp_path
):
    client, store = services.client, services.store
    project = make_project(label_config=CONFIG)
    name = model_name(project.id)
    tasks = _make_tasks(project.id, f"{name}-v2", make_task)
    store.projects.save(project.id, CONFIG)
    for seed in range(2):
        folder = save_checkpoint(build_tiny_mask2former(("Disc",), seed=seed), tmp_path / str(seed))
        services.registry.register(name, folder, labels=("Disc",), metrics=None, parent=seed or None)
    old, new = f"{name}-v1", f"{name}-v2"
    promote_version(project.id, 1, services)
    _work_on_all(services, JobKind.PRELABEL)

    store.trials.begin(project.id, new=new, old=old, after_version=0)
    promote_version(project.id, 2, services)
    _work_on_all(services, JobKind.PRELABEL)
    assert client.project(project.id).model_version == new
    olds = {task for task in tasks if is_old_versions(task, new)}
    drawn = {}
    for task in tasks:
        found = {one["model_version"]: one for one in client.predictions_of(task)}
        assert found.keys() == {old, new}
        drawn[task] = found[new]
        same = [one["value"] for one in found[old]["result"]] == [
            one["value"] for one in found[new]["result"]
        ]
        assert same is (task in olds), "who drew it"

    for task in tasks:
        kept = [{**one, "origin": "prediction"} for one in drawn[task]["result"]] if task in olds else []
        client.create_annotation(
            task, {"result": kept, "lead_time": 5, "parent_prediction": drawn[task]["id"]}
        )
    find_changes(project.id, store=store, client=client, settings=services.settings, full=True)
    _work_on_all(services, JobKind.EVENT)

    edited = {one.task_id: one for one in store.corrections.edited(project.id)}
    assert {task: one.model_version for task, one in edited.items()} == {
        task: old if task in olds else new for task in tasks
    }
    assert services.registry.alias(name, CHAMPION) == 1
    assert client.project(project.id).model_version == old, "displayed again at once"
    (trial,) = store.trials.of(project.id)
    assert (trial.verdict, trial.old_share, trial.new_share) == ("worse", 1.0, 0.0)
    entry = store.audit.newest(project.id, limit=1)[0].entry
    assert (entry.action, entry.actor.name) == ("rolled_back", "trial")
