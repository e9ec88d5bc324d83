"""The reconciler against a Label Studio in memory that answers the same questions, and a real database."""

import json
import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from tests.fakes.stamped_studio import NOON, PROJECT_ID, StampedStudio

from maskloop.errors import StudioError
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop_studio.intake.reconcile import find_changes, sync_project
from maskloop_studio.labelstudio.data_manager import pages_by_change, pages_by_id, stamp_params
from maskloop_studio.labelstudio.models import TaskPage, to_page
from maskloop_studio.labelstudio.webhooks import webhook_headers


@pytest.fixture
def studio():
    return StampedStudio()


@pytest.fixture
def services(studio, store, settings):
    store.projects.save(PROJECT_ID, "<View/>")
    return SimpleNamespace(client=studio, store=store, settings=settings)


def in_database(store):
    return {
        number: (known.task_id, known.updated_at, known.state == "skipped")
        for number, known in store.annotations.known(PROJECT_ID).items()
    }


def work_on(job_id, services):
    """What a worker does: it asks, whatever the event says."""
    store, client = services.store, services.client
    job = store.jobs.claim(job_id, "worker")
    if job is None:
        return
    if job.action == "PROJECT_DELETED" and client.gone:
        store.annotations.delete_project(PROJECT_ID)
        store.projects.remove(PROJECT_ID)
    if job.action == "TASKS_DELETED":
        store.annotations.delete(
            PROJECT_ID, task_ids=[one for one in job.subject_ids if one not in client.tasks]
        )
    for number in job.subject_ids if job.action.startswith("ANNOTATION") else ():
        take(number, client, store)
    store.jobs.finish(job_id, "worker")


def take(number, client, store):
    raw, asked_at = client.annotation(number), now()
    if raw is None:
        store.annotations.delete(PROJECT_ID, annotation_ids=[number], read_at=asked_at)
        return
    store.annotations.save(
        AnnotationSnapshot(
            annotation_id=number,
            project_id=PROJECT_ID,
            task_id=raw["task"],
            updated_at=datetime.fromisoformat(raw["updated_at"]),
            state="skipped" if raw["was_cancelled"] else "submitted",
            content=raw,
            label_config="<View/>",
            split="train",
            read_at=asked_at,
        )
    )


def sync(services, **options):
    return sync_project(PROJECT_ID, **vars(services), run=lambda job_id: work_on(job_id, services), **options)


def change_something(studio, chance):
    annotated = [(task_id, number) for task_id, (_, said) in studio.tasks.items() for number in said]
    kind = chance.choice(["task", "annotate", "annotate", "edit", "skip", "delete", "drop task", "bulk"])
    if kind == "task" or not studio.tasks:
        studio.add_task()
    elif kind == "annotate":
        studio.annotate(chance.choice(list(studio.tasks)), skipped=chance.random() < 0.3)
    elif kind in ("edit", "skip") and annotated:
        task_id, number = chance.choice(annotated)
        studio.annotate(task_id, number=number, skipped=kind == "skip")
    elif kind == "delete" and annotated:
        studio.delete(*chance.choice(annotated))
    elif kind == "drop task":
        del studio.tasks[chance.choice(list(studio.tasks))]
    elif kind == "bulk":
        at = studio.tick()
        for task in studio.tasks.values():
            task[0] = at


@pytest.mark.parametrize("seed", range(12))
def test_sync_after_any_changes_and_interruptions_ends_as_label_studio(studio, services, seed):
    chance = random.Random(seed)

    def meanwhile(_checked, _total):
        if chance.random() < 0.15:
            change_something(studio, chance)
        if chance.random() < 0.15:
            raise KeyboardInterrupt

    for _ in range(6):
        for _ in range(chance.randrange(25)):
            change_something(studio, chance)
        studio.tick(chance.choice([1, 1000]))
        try:
            sync(services, on_page=meanwhile)
        except KeyboardInterrupt:
            continue
    sync(services)
    assert in_database(services.store) == studio.state()
    assert sync(services, full=True).found == 0


def test_find_changes_counts_each_kind(studio, services):
    first, second, third, fourth = (studio.add_task() for _ in range(4))
    numbers = [studio.annotate(task_id) for task_id in (first, second, third)]
    assert sync(services).missed == 3
    studio.annotate(first, number=numbers[0])
    studio.delete(second, numbers[1])
    studio.annotate(second)
    del studio.tasks[third]
    studio.annotate(fourth, skipped=True)
    report = find_changes(PROJECT_ID, **vars(services))
    assert (report.missed, report.changed, report.deleted) == (2, 1, 2)
    assert report.listed_all
    assert len(report.event_ids) == 5


def test_find_changes_same_difference_twice_is_one_event(studio, services):
    studio.annotate(studio.add_task())
    assert len(find_changes(PROJECT_ID, **vars(services)).event_ids) == 2  # the label config is told once too
    again = find_changes(PROJECT_ID, **vars(services))
    assert (again.missed, again.event_ids) == (1, ())


def test_find_changes_difference_that_comes_back_is_told_again_but_not_for_ever(studio, services):
    studio.annotate(studio.add_task())
    told = 0
    for _ in range(8):
        event_ids = find_changes(PROJECT_ID, **vars(services), full=True).event_ids
        told += len(event_ids)
        for job_id in event_ids:  # done, they say, and nothing is there
            services.store.jobs.claim(job_id, "worker")
            services.store.jobs.finish(job_id, "worker")
    assert told == 1 + 5


@pytest.mark.parametrize("status", [JobStatus.DEAD, JobStatus.DROPPED], ids=lambda status: status.value)
def test_find_changes_newer_difference_of_a_given_up_event_is_told(studio, services, status):
    task_id = studio.add_task()
    number = studio.annotate(task_id)
    *_, job_id = find_changes(PROJECT_ID, **vars(services)).event_ids
    services.store.jobs.claim(job_id, "worker")
    services.store.jobs.fail(job_id, "worker", "no", retry=False)
    if status is JobStatus.DROPPED:
        services.store.jobs.drop(job_id)
    given_up = find_changes(PROJECT_ID, **vars(services))
    assert (given_up.event_ids, given_up.listed_all) == ((), False)
    studio.annotate(task_id, number=number)
    assert len(find_changes(PROJECT_ID, **vars(services)).event_ids) == 1


def test_find_changes_nothing_changed_asks_little_and_lists_nothing(studio, services):
    for _ in range(30):
        studio.annotate(studio.add_task())
    sync(services)
    studio.tick(3600)
    sync(services)
    studio.requests = 0
    report = find_changes(PROJECT_ID, **vars(services))
    assert (studio.requests, report.checked, report.listed_all) == (1, 0, False)


def test_find_changes_annotations_without_a_task_make_only_one_pass_list_everything(studio, services, caplog):
    first, *others = (studio.add_task() for _ in range(3))
    for task_id in (first, *others):
        studio.annotate(task_id)
    sync(services)
    studio.orphans = [False, True, True]
    listed = [sync(services).listed_all for _ in range(3)]
    assert listed == [True, False, False]
    assert services.store.projects.orphans(PROJECT_ID) == (1, 2)
    assert caplog.text.count("annotations_without_task") == 1
    del studio.tasks[first]  # without a webhook
    report = sync(services)
    assert (report.deleted, report.listed_all) == (1, True)
    studio.orphans = []
    listed = [sync(services).listed_all for _ in range(2)]
    assert listed == [True, False]
    assert in_database(services.store) == studio.state()


def test_find_changes_counts_that_move_during_a_listing_are_not_kept(studio, services):
    studio.annotate(studio.add_task())
    studio.orphans = [False]

    def meanwhile(_checked, _total):
        studio.annotate(studio.add_task())

    sync(services, full=True, on_page=meanwhile)
    assert services.store.projects.orphans(PROJECT_ID) == (0, 0)
    assert [sync(services).listed_all for _ in range(2)] == [True, False]
    assert services.store.projects.orphans(PROJECT_ID) == (1, 0)


def test_find_changes_predictions_that_move_unlabelled_tasks_cost_nothing(studio, services):
    for _ in range(30):
        studio.add_task()
    studio.requests = 0
    assert find_changes(PROJECT_ID, **vars(services)).checked == 0
    assert studio.requests == 1


def test_find_changes_late_commit_within_the_overlap_is_seen(studio, services):
    late = studio.add_task()
    early = studio.tick()
    studio.tick(60)
    studio.annotate(studio.add_task())
    sync(services)
    studio.tasks[late] = [early, {999: (early, False)}]
    report = find_changes(PROJECT_ID, **vars(services))
    assert (report.missed, report.listed_all) == (1, False)


def test_find_changes_watermark_never_runs_ahead_of_our_clock(studio, services):
    studio.clock = datetime.now(UTC) + timedelta(days=365)
    studio.annotate(studio.add_task())
    find_changes(PROJECT_ID, **vars(services))
    assert services.store.projects.watermark(PROJECT_ID) <= datetime.now(UTC)


def _at(minutes):
    return {"clock": lambda: NOON + timedelta(minutes=minutes)}


def _find(services, minutes=0):
    return find_changes(PROJECT_ID, **vars(services), **_at(minutes))


def test_find_changes_one_404_keeps_the_project_and_its_annotations(studio, services):
    studio.annotate(studio.add_task())
    sync(services)
    studio.gone = True
    report = _find(services)
    assert (report.project_away, report.project_gone, report.event_ids) == (True, False, ())
    assert services.store.projects.absences()[PROJECT_ID].checks == 1
    assert len(in_database(services.store)) == 1


def test_find_changes_project_that_comes_back_is_present_by_itself(studio, services):
    studio.annotate(studio.add_task())
    sync(services)
    studio.gone = True
    for minutes in (0, 30):
        _find(services, minutes)
    studio.gone = False
    assert _find(services, 61).found == 0
    assert services.store.projects.absences() == {}
    studio.gone = True
    assert _find(services, 62).project_away  # counted anew


def test_find_changes_project_missing_for_over_an_hour_is_deleted_by_one_event(studio, services):
    studio.annotate(studio.add_task())
    sync(services)
    studio.gone = True
    for minutes in (0, 30):
        assert _find(services, minutes).project_away
    report = _find(services, 61)
    assert (report.project_gone, report.deleted, len(report.event_ids)) == (True, 1, 1)
    work_on(report.event_ids[0], services)
    assert in_database(services.store) == {}
    assert _find(services, 90).event_ids == ()


def test_find_changes_project_that_cannot_be_seen_is_not_away(studio, services, monkeypatch):
    studio.gone = True
    refused = StudioError("x", expected="a token that works", got="401", remedy="set it", status=401)
    monkeypatch.setattr(studio, "whoami", lambda: (_ for _ in ()).throw(refused))
    with pytest.raises(StudioError, match="401"):
        _find(services)
    assert services.store.projects.absences() == {}


def _hook(services, **changes):
    headers = webhook_headers(services.settings, services.store)
    return {"id": 5, "url": "http://m/webhook", "headers": headers, "actions": ["X"]} | changes


def test_find_changes_webhook_switched_off_is_switched_on_and_all_is_compared(studio, services, caplog):
    sync(services)
    studio.hooks = [_hook(services, is_active=False, consecutive_failures=50)]
    report = find_changes(PROJECT_ID, **vars(services))
    assert (report.webhooks_reactivated, report.listed_all) == (1, True)
    assert (studio.hooks[0]["is_active"], studio.hooks[0]["actions"]) == (True, ["X"])
    assert "webhook_reactivated" in caplog.text
    assert find_changes(PROJECT_ID, **vars(services)).webhooks_reactivated == 0


def test_find_changes_token_that_may_not_see_webhooks_still_compares(studio, services, monkeypatch):
    refused = StudioError("x", expected="webhooks", got="403", remedy="none", status=403)
    monkeypatch.setattr(studio, "webhooks", lambda _: (_ for _ in ()).throw(refused))
    studio.annotate(studio.add_task())
    assert find_changes(PROJECT_ID, **vars(services)).missed == 1


def test_sync_project_works_off_what_waited_before(studio, services):
    number = studio.annotate(studio.add_task())
    find_changes(PROJECT_ID, **vars(services))
    done = []
    sync(services, on_event=done.append)
    assert done == [1, 2]
    assert set(in_database(services.store)) == {number}
    waiting = services.store.jobs.find(statuses=[JobStatus.WAITING], kind=JobKind.EVENT)
    assert waiting == ()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10], ids="{} tasks".format)
def test_pages_of_one_moment_come_whole(studio, count):
    for _ in range(count):
        studio.annotate(studio.add_task())
    for task in studio.tasks.values():
        task[0] = NOON

    def read(filters, ordering):
        return studio._stamps(PROJECT_ID, filters, ordering)

    expected = set(studio.tasks)
    for since in (None, NOON):
        assert {task.id for page in pages_by_change(read, since) for task in page.tasks} == expected
    assert [task.id for page in pages_by_id(read) for task in page.tasks] == sorted(expected)


def test_stamp_params_tell_times_in_utc_with_microseconds(studio):
    asked = []

    def read(filters, ordering):
        asked.append(json.loads(stamp_params(PROJECT_ID, filters, ordering)["query"]))
        return TaskPage(tasks=(), total=0, at=None)

    since = datetime.fromisoformat("2026-03-01T14:00:00+02:00")
    list(pages_by_change(read, since))
    assert {item["value"] for item in asked[0]["filters"]["items"]} == {"2026-03-01T12:00:00.000000Z"}
    assert asked[0]["ordering"] == ["tasks:updated_at"]


def test_to_page_without_times_says_so():
    raw = {"total": 1, "tasks": [{"id": 1, "updated_at": "2026-03-01T12:00:00Z", "annotations": [{"id": 2}]}]}
    with pytest.raises(StudioError, match="updated_at"):
        to_page(raw, None)
