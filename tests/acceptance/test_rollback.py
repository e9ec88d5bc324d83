"""A promotion and the way back on a real Label Studio: its model version and displayed predictions follow."""

import pytest
from pydantic import SecretStr

from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation.checkpoint import save_checkpoint
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.projects.champion import promote_version, prune_versions, roll_back
from maskloop_studio.projects.training import model_name
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.services import Services

# MLflow's own tables and entities warn of what SQLAlchemy and pydantic will change one day
pytestmark = [
    pytest.mark.studio,
    pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::pydantic"),
]

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Disc"/></BrushLabels></View>'
)


@pytest.fixture
def services(settings, studio):
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    changes |= {"score_threshold": 0.0, "keep_versions": 1, "keep_predictions": 2}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    yield made
    made.client.close()
    made.close()


@pytest.fixture
def project(make_project, make_task):
    made = make_project(label_config=CONFIG)
    for _ in range(2):
        make_task(made.id)
    return made


@pytest.fixture
def name(services, project, tmp_path):
    """Three versions of a model that says nonsense, each its own."""
    name = model_name(project.id)
    for seed in range(3):
        folder = save_checkpoint(build_tiny_mask2former(("Disc",), seed=seed), tmp_path / str(seed))
        services.registry.register(name, folder, labels=("Disc",), metrics=None, parent=seed or None)
    return name


def _renew(services):
    """Do what a promotion or rollback asked a worker to do."""
    (job,) = [job for job in services.store.jobs.due() if job.kind is JobKind.PRELABEL]
    assert work_on(job.job_id, services) is JobStatus.DONE, services.store.jobs.get(job.job_id)
    return services.store.jobs.get(job.job_id).outcome["pushed"]


def _displayed(services, project):
    """What an annotator who opens the tasks is shown: the project's version, and whose predictions it has."""
    version = services.client.project(project.id).model_version
    tasks = list(services.client.iter_tasks(project.id))
    stored = [bool(services.client.prediction_ids(task.id, version)) for task in tasks]
    return version, sum(stored)


def test_rollback_takes_the_displayed_version_along(services, project, name, make_task):
    for number in (1, 2, 3):
        move = promote_version(project.id, number, services)
        assert (move.after, move.shown) == (f"{name}-v{number}", False)
        assert _renew(services) == 2
        assert _displayed(services, project) == (f"{name}-v{number}", 2)

    back = roll_back(project.id, services, reason="discs are missed")
    assert (back.before, back.after, back.shown, back.stored) == (f"{name}-v3", f"{name}-v2", True, 2)
    assert _displayed(services, project) == (f"{name}-v2", 2)  # before any worker did anything
    assert _renew(services) == 0

    make_task(project.id)  # v1 has never seen it
    assert roll_back(project.id, services).after == f"{name}-v1"
    assert _displayed(services, project) == (f"{name}-v1", 2)
    assert _renew(services) == 1
    assert _displayed(services, project) == (f"{name}-v1", 3)

    forward = promote_version(project.id, 3, services)
    assert (forward.shown, forward.stored) == (True, 2)
    assert _renew(services) == 1
    assert _displayed(services, project) == (f"{name}-v3", 3)


def test_rollback_during_a_renewal_ends_with_the_older_version_displayed(
    services, project, name, monkeypatch
):
    for number in (1, 2):
        promote_version(project.id, number, services)
        _renew(services)
    promote_version(project.id, 3, services)
    (job,) = services.store.jobs.due()
    create, rolled_back, first = services.client.create_prediction, [], iter([True])

    def create_and_roll_back(*arguments, **values):
        if next(first, False):  # several are sent at once
            rolled_back.append(roll_back(project.id, services).after)
        return create(*arguments, **values)

    monkeypatch.setattr(services.client, "create_prediction", create_and_roll_back)
    assert work_on(job.job_id, services) is JobStatus.DONE
    assert rolled_back == [f"{name}-v2"]
    assert _displayed(services, project) == (f"{name}-v2", 2)


def test_prune_never_takes_what_label_studio_displays(services, project, name, tmp_path):
    promote_version(project.id, 1, services)
    _renew(services)
    for number in (2, 3):  # without a renewal: Label Studio still shows the first
        services.registry.promote(name, number)
    assert prune_versions(project.id, services) == ()
    for seed in range(3, 7):
        folder = save_checkpoint(build_tiny_mask2former(("Disc",), seed=seed), tmp_path / str(seed))
        services.registry.promote(
            name,
            services.registry.register(name, folder, labels=("Disc",), metrics=None, parent=seed).number,
        )
    assert prune_versions(project.id, services) == (f"{name}-v2", f"{name}-v3")
    assert _displayed(services, project) == (f"{name}-v1", 2)
