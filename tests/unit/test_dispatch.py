"""Jobs that are requested: not without a connected project, and not beside the same job."""

from datetime import UTC, datetime

import pytest

from maskloop.errors import ConfigurationError
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.dispatch import request

SAVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def train(store):
    """Request a training of project 1, which is connected, and return its number."""
    store.projects.save(1, "<View/>")

    def do():
        return request(JobKind.TRAINING, 1, "test", store=store, queue=MemoryQueue())

    return do


def _annotate(store):
    snapshot = AnnotationSnapshot(
        annotation_id=70,
        project_id=1,
        task_id=7,
        updated_at=SAVED,
        state="submitted",
        content={"result": []},
        label_config="<View/>",
        split="train",
        read_at=SAVED,
    )
    return store.annotations.save(snapshot).version_id


def test_request_training_of_a_project_that_is_not_connected_is_refused(store):
    with pytest.raises(ConfigurationError, match="maskloop connect 99"):
        request(JobKind.TRAINING, 99, "test", store=store, queue=MemoryQueue())
    assert store.jobs.find() == ()


def test_request_training_beside_the_same_one_that_waits_is_that_one(train):
    assert train() == train()


@pytest.mark.parametrize("has_begun", [True, False], ids=["its snapshot is made", "it has just started"])
def test_request_training_beside_the_same_one_that_runs_is_that_one(store, train, has_begun):
    number = train()
    store.jobs.claim(number, "worker")
    if has_begun:
        store.trainings.begin(number, 1, through_version=0)
    assert train() == number
    assert len(store.jobs.find(kind=JobKind.TRAINING)) == 1


def test_request_training_with_newer_corrections_than_the_running_one_is_another(store, train):
    number = train()
    store.jobs.claim(number, "worker")
    store.trainings.begin(number, 1, through_version=0)
    assert _annotate(store) == 1
    assert train() != number


def test_training_that_is_cancelled_is_called_cancelled(store, train):
    number = train()
    assert store.jobs.cancel(number) is JobStatus.CANCELLED
    assert store.trainings.get(number).status == "cancelled"
    assert train() != number
