"""Jobs: kept once, worked on by one, tried again, given up, never forgotten."""

import threading
import time
from datetime import timedelta

import pytest

from maskloop.errors import StoreError
from maskloop.store.database import Store
from maskloop.store.jobs import MAX_ATTEMPTS, MAX_LAPSES, JobKind, JobStatus
from maskloop.store.sessions import now

EVENT, TRAINING, SYNC = JobKind.EVENT, JobKind.TRAINING, JobKind.SYNC


def _at_once(work, count=4):
    """Call work(0), work(1) ... in threads and return what they returned."""
    results = [None] * count

    def call(index):
        results[index] = work(index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_add_events_told_twice_are_kept_once(store, make_event):
    first, again, other = store.jobs.add_events([make_event("a"), make_event("a"), make_event("b")])
    assert again is None
    assert store.jobs.add_events([make_event("b")]) == [None]
    assert [job.job_id for job in store.jobs.due()] == [first, other]
    assert store.jobs.get(first).name == f"event-{first}"


def test_add_events_by_many_at_once_lose_nothing(database_url, make_event):
    stores = [Store(database_url) for _ in range(4)]

    def write(index):
        for number in range(10):
            stores[index].jobs.add_events([make_event(f"{index}-{number}"), make_event(f"shared-{number}")])

    _at_once(write)
    assert stores[0].jobs.counts() == {"waiting": 50}
    for opened in stores:
        opened.close()


def test_add_events_empty_is_nothing(store):
    assert store.jobs.add_events([]) == []


def test_want_one_that_waits_serves_the_next_wish(store):
    first = store.jobs.request(TRAINING, 1, "button")
    assert store.jobs.request(TRAINING, 1, "20 new corrections") == first
    assert store.jobs.request(TRAINING, 2) != first
    assert store.jobs.request(SYNC, 1) != first


def test_want_while_one_runs_makes_exactly_one_more(store):
    first = store.jobs.request(TRAINING, 1)
    assert store.jobs.claim(first, "me")
    second = store.jobs.request(TRAINING, 1)
    assert second != first
    assert store.jobs.request(TRAINING, 1) == second
    assert store.jobs.claim(second, "you") is None
    store.jobs.finish(first, "me")
    assert store.jobs.claim(second, "you")


def test_due_one_whose_kind_and_project_runs_already_is_left_out(store):
    first = store.jobs.request(TRAINING, 1)
    store.jobs.claim(first, "me")
    second, other = store.jobs.request(TRAINING, 1), store.jobs.request(TRAINING, 2)
    assert [job.job_id for job in store.jobs.due()] == [other]
    store.jobs.finish(first, "me")
    assert [job.job_id for job in store.jobs.due()] == [second, other]


def test_want_by_many_at_once_makes_one(database_url):
    stores = [Store(database_url) for _ in range(4)]
    assert len(set(_at_once(lambda index: stores[index].jobs.request(TRAINING, 1)))) == 1
    for opened in stores:
        opened.close()


def test_claim_by_many_at_once_gives_it_to_one(database_url, make_event):
    stores = [Store(database_url) for _ in range(4)]
    (number,) = stores[0].jobs.add_events([make_event()])
    got = _at_once(lambda index: stores[index].jobs.claim(number, f"worker {index}"))
    assert sum(job is not None for job in got) == 1
    for opened in stores:
        opened.close()


def test_claim_live_owner_keeps_it_dead_one_loses_it(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    assert store.jobs.claim(number, "first", lease_s=0.2)
    assert store.jobs.claim(number, "second") is None
    time.sleep(0.3)
    assert [job.job_id for job in store.jobs.due()] == [number]
    assert store.jobs.claim(number, "second").owner == "second"
    assert not store.jobs.renew(number, "first").held
    assert not store.jobs.finish(number, "first")
    assert store.jobs.fail(number, "first", "too late") is None
    assert store.jobs.finish(number, "second")


def test_renew_keeps_the_lease_and_notes_progress(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    store.jobs.claim(number, "me", lease_s=0.2)
    assert store.jobs.renew(number, "me", done=3, total=9).held
    time.sleep(0.3)
    assert store.jobs.claim(number, "you") is None
    job = store.jobs.get(number)
    assert (job.done, job.total, job.details) == (3, 9, {})


def test_renew_keeps_finite_details_until_there_are_new_ones(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    store.jobs.claim(number, "me")
    store.jobs.renew(number, "me", details={"loss": 0.5, "eta_s": float("inf"), "other": float("nan")})
    store.jobs.renew(number, "me", done=4)
    job = store.jobs.get(number)
    assert (job.details, job.done) == ({"loss": 0.5}, 4)
    assert job.lease_until > job.started_at


def test_find_before_pages_backwards(store, make_event):
    numbers = store.jobs.add_events([make_event(str(number)) for number in range(5)])
    newest = store.jobs.find(limit=2)
    older = store.jobs.find(limit=2, before_id=newest[0].job_id)
    assert [job.job_id for job in (*older, *newest)] == numbers[1:]


def test_claim_starts_after_the_one_before_has_ended(database_url, monkeypatch):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    store, other = Store(database_url), Store(database_url)
    first = store.jobs.request(TRAINING, 1)
    store.jobs.claim(first, "one")
    second = store.jobs.request(TRAINING, 1)
    clock = other._sessions.clock

    def slow(session):
        at = clock(session)
        store.jobs.finish(first, "one")  # between the look at the clock and the change
        return at

    monkeypatch.setattr(other._sessions, "clock", slow)
    started = other.jobs.claim(second, "two")
    assert started.started_at > store.jobs.get(first).finished_at
    for opened in (store, other):
        opened.close()


def test_claim_job_that_always_ends_its_worker_is_given_up(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    for _ in range(MAX_LAPSES + 1):
        assert store.jobs.claim(number, "worker", lease_s=-1)
    assert store.jobs.claim(number, "worker") is None
    assert store.jobs.get(number).status is JobStatus.DEAD


def test_fail_waits_longer_each_time_then_dies(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    delays = []
    for _ in range(MAX_ATTEMPTS - 1):
        with store._sessions.write() as session:  # its time has come
            from maskloop.store.tables import JobRow

            session.get(JobRow, number).due_at = now() - timedelta(seconds=1)
        assert store.jobs.claim(number, "me")
        assert store.jobs.fail(number, "me", "no answer") is JobStatus.WAITING
        delays.append(store.jobs.get(number).due_at - now())
        assert store.jobs.due() == ()
        assert store.jobs.claim(number, "me") is None
    assert delays == sorted(delays)
    store.jobs.retry(number)
    store.jobs.claim(number, "me")
    assert store.jobs.fail(number, "me", "cannot be read\0", retry=False) is JobStatus.DEAD
    assert store.jobs.get(number).error == "cannot be read"


def test_fail_while_another_waits_leaves_it_to_that_one(store):
    first = store.jobs.request(TRAINING, 1)
    store.jobs.claim(first, "me")
    second = store.jobs.request(TRAINING, 1)
    assert store.jobs.fail(first, "me", "no answer") is JobStatus.DROPPED
    assert store.jobs.claim(second, "me")


def test_retry_dead_one_waits_again(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    store.jobs.claim(number, "me")
    assert store.jobs.retry(number) is None
    store.jobs.fail(number, "me", "cannot be read", retry=False)
    assert store.jobs.retry(number) == number
    assert store.jobs.claim(number, "me").attempts == 0


def test_retry_while_another_waits_names_that_one(store):
    first = store.jobs.request(TRAINING, 1)
    store.jobs.claim(first, "me")
    store.jobs.fail(first, "me", "diverged", retry=False)
    second = store.jobs.request(TRAINING, 1)
    assert store.jobs.retry(first) == second


def test_drop_takes_it_off_the_list(store, make_event):
    (number,) = store.jobs.add_events([make_event()])
    store.jobs.claim(number, "me")
    assert not store.jobs.drop(number)
    store.jobs.fail(number, "me", "cannot be read", retry=False)
    assert store.jobs.drop(number)
    assert store.jobs.find(statuses=[JobStatus.DEAD]) == ()
    assert store.jobs.add_events([make_event()]) == [None]


def test_cancel_waiting_one_ends_at_once_running_one_is_told(store):
    first = store.jobs.request(TRAINING, 1)
    store.jobs.claim(first, "me")
    second = store.jobs.request(TRAINING, 1)
    assert store.jobs.cancel(second) is JobStatus.CANCELLED
    assert store.jobs.cancel(first) is JobStatus.RUNNING
    assert store.jobs.renew(first, "me").cancel
    store.jobs.end_cancelled(first, "me")
    assert store.jobs.cancel(first) is None


def test_find_gives_the_newest_oldest_first(store, make_event):
    numbers = store.jobs.add_events([make_event(str(index), project_id=index % 2) for index in range(6)])
    assert [job.job_id for job in store.jobs.find(project_id=1, limit=2)] == [numbers[3], numbers[5]]
    assert store.jobs.counts(1) == {"waiting": 3}


def test_narrow_leaves_only_what_is_still_to_be_done(store, make_event):
    (number,) = store.jobs.add_events([make_event(subject_ids=(1, 2, 3))])
    store.jobs.claim(number, "me")
    store.jobs.narrow(number, "me", [3])
    assert store.jobs.get(number).subject_ids == (3,)


def test_prune_forgets_what_went_well_and_keeps_the_rest(store, make_event):
    done, dead = store.jobs.add_events([make_event("a"), make_event("b")])
    training = store.jobs.request(TRAINING, 1)
    for number in (done, dead, training):
        store.jobs.claim(number, "me")
    store.jobs.finish(done, "me")
    store.jobs.finish(training, "me", {"promoted": True})
    store.jobs.fail(dead, "me", "cannot be read", retry=False)
    assert store.jobs.prune(now() - timedelta(days=1)) == 0
    assert store.jobs.prune(now() + timedelta(days=1)) == 1
    assert [job.job_id for job in store.jobs.find()] == [dead, training]


def test_training_progress_and_outcome_come_back(store):
    number = store.jobs.request(TRAINING, 1, "button")
    assert store.trainings.get(number).status == "queued"
    store.jobs.claim(number, "me")
    store.trainings.begin(number, 1, through_version=9)
    store.trainings.begin(number, 1, through_version=12)
    store.jobs.renew(number, "me", done=3, total=10)
    assert store.trainings.trained_through(1) == 9
    store.jobs.finish(number, "me", {"promoted": True})
    training = store.trainings.get(number)
    assert (training.status, training.step, training.outcome) == ("finished", 3, {"promoted": True})
    assert training.reason == "button"


def test_trained_through_training_given_up_does_not_count(store):
    number = store.jobs.request(TRAINING, 1)
    store.jobs.claim(number, "me")
    store.trainings.begin(number, 1, through_version=9)
    store.jobs.fail(number, "me", "diverged", retry=False)
    assert store.trainings.get(number).status == "failed"
    assert store.trainings.trained_through(1) == 9
    store.jobs.drop(number)
    assert store.trainings.trained_through(1) == 0


def test_want_after_a_quiet_time_is_put_off_by_each_wish(store):
    number = store.jobs.request(TRAINING, 1, quiet_s=60)
    first = store.jobs.get(number).due_at
    assert store.jobs.due() == ()
    assert store.jobs.request(TRAINING, 1, quiet_s=60) == number
    assert first < store.jobs.get(number).due_at <= first + timedelta(seconds=60)


def test_want_after_a_quiet_time_is_not_put_off_for_ever(store):
    number = store.jobs.request(TRAINING, 1, quiet_s=0.05)
    deadline = store.jobs.get(number).created_at + timedelta(seconds=0.5)
    while now() < deadline - timedelta(seconds=0.1):
        store.jobs.request(TRAINING, 1, quiet_s=0.05)
    assert store.jobs.get(number).due_at <= deadline


def test_want_at_once_brings_a_put_off_job_forward(store):
    number = store.jobs.request(TRAINING, 1, quiet_s=60)
    assert store.jobs.request(TRAINING, 1, "button") == number
    assert [job.job_id for job in store.jobs.due()] == [number]


def test_trainings_get_other_kind_is_none(store):
    assert store.trainings.get(store.jobs.request(SYNC, 1)) is None


def test_store_unknown_database_raises_with_remedy():
    with pytest.raises(StoreError, match="MASKLOOP_DATABASE_URL"):
        Store("nosuchdatabase://host/name")


def test_webhook_secret_is_one_for_all(database_url):
    stores = [Store(database_url) for _ in range(4)]
    secrets = set(_at_once(lambda index: stores[index].projects.webhook_secret()))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 32
    for opened in stores:
        opened.close()


def test_watermark_of_connected_project_comes_back(store):
    at = now()
    store.projects.save(1, "<View/>")
    assert store.projects.watermark(1) is None
    store.projects.set_watermark(1, at)
    assert store.projects.watermark(1) == at
    store.projects.remove(1)
    assert (store.projects.ids(), store.projects.watermark(1)) == ((), None)


def test_pushed_tasks_unfinished_push_stays_in_doubt(store):
    store.pushes.begin(1, 7, "v1")
    store.pushes.begin(1, 7, "v1")
    store.pushes.begin(1, 8, "v1")
    store.pushes.finish_many(1, "v1", {8: 800})
    assert store.pushes.of(1, "v1") == {7: None, 8: 800}
    assert store.pushes.of(1, "v2") == {}


def test_forget_pushes_task_number_can_be_used_again(store):
    for task_id in (7, 8):
        store.pushes.begin(1, task_id, "v1")
        store.pushes.finish_many(1, "v1", {task_id: 10 * task_id})
    store.pushes.forget(1, [7])
    assert store.pushes.of(1, "v1") == {8: 80}
