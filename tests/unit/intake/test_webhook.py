"""What a webhook says -> what is kept of it."""

import pytest
from tests.fakes.events import UPDATED_AT, annotation, webhook_event

from maskloop.testing.memory import MemoryQueue
from maskloop_studio.errors import UnreadableError
from maskloop_studio.intake.webhook import read_event, receive_event
from maskloop_studio.labelstudio.protocol import WebhookEvent


def _event(action="ANNOTATION_CREATED", *, annotation=None, **fields):
    return WebhookEvent.model_validate(webhook_event(action, annotation=annotation, **fields))


@pytest.mark.parametrize(
    ("event", "subjects"),
    [
        pytest.param(_event(annotation=annotation()), (5,), id="one"),
        pytest.param(
            _event("ANNOTATIONS_CREATED", annotation=[annotation(7), annotation(6)]), (6, 7), id="bulk"
        ),
        pytest.param(_event("ANNOTATIONS_DELETED", annotations=[{"id": 3}, {"id": 3}]), (3,), id="twice"),
        pytest.param(_event("TASKS_DELETED", tasks=[{"id": 2}]), (2,), id="tasks"),
        pytest.param(_event("PROJECT_UPDATED"), (1,), id="project"),
    ],
)
def test_read_event_keeps_only_numbers(event, subjects):
    new = read_event(event)
    assert (new.action, new.project_id, new.subject_ids) == (event.action, 1, subjects)


@pytest.mark.parametrize("action", ["LABEL_LINK_CREATED", "LABEL_LINK_DELETED"])
def test_read_event_that_asks_for_nothing_is_none(action):
    assert read_event(_event(action)) is None
    assert read_event(_event("ANNOTATIONS_DELETED", annotations=[])) is None


def test_read_event_without_payload_names_the_remedy():
    with pytest.raises(UnreadableError, match="send_payload"):
        read_event(_event("TASKS_CREATED"))


def test_read_event_same_words_have_one_key():
    first, again, later = (
        read_event(_event(annotation=annotation(updated_at=at)))
        for at in (UPDATED_AT, UPDATED_AT, UPDATED_AT.replace("02.7", "03.7"))
    )
    assert first.key == again.key != later.key


def test_read_event_deletion_told_again_is_news():
    event = _event("ANNOTATIONS_DELETED", annotations=[{"id": 3}])
    assert read_event(event).key != read_event(event).key


def test_receive_event_is_kept_and_queued_once(store):
    queue = MemoryQueue()
    event = _event(annotation=annotation())
    assert [receive_event(event, store=store, queue=queue).status for _ in range(2)] == ["accepted", "known"]
    assert [job.job_id for job in queue.drain()] == ["event-1"]
