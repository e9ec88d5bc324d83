"""Shards: many of a project at once, ended with their renewal."""

import pytest

from maskloop.store.jobs import JobKind, JobStatus

TAG = "maskloop-1-v2"


@pytest.fixture
def shards(store):
    return store.shards.add(1, TAG, [[7, 8], [9]])


def test_shards_many_wait_and_run_at_once(store, shards):
    assert [job.subject_ids for job in store.shards.open(1)] == [(7, 8), (9,)]
    assert all(store.jobs.claim(number, f"worker {number}") is not None for number in shards)
    assert store.shards.open_count(1) == 2
    assert store.shards.due(1) == ()
    more = store.shards.add(1, TAG, [[10]])
    assert [job.job_id for job in store.shards.due(1)] == list(more)  # while others run


def test_shard_whose_worker_is_gone_is_due_again(store, shards):
    store.jobs.claim(shards[0], "gone", lease_s=-1)
    assert {job.job_id for job in store.shards.due(1)} == set(shards)


def test_cancel_renewal_ends_its_shards(store, shards):
    renewal = store.jobs.request(JobKind.PRELABEL, 1)
    (foreign,) = store.shards.add(2, TAG, [[7]])
    store.jobs.claim(shards[0], "me")
    assert store.jobs.cancel(renewal) is JobStatus.CANCELLED
    assert store.jobs.renew(shards[0], "me").cancel
    assert store.jobs.get(shards[1]).status is JobStatus.CANCELLED
    assert store.jobs.get(foreign).status is JobStatus.WAITING


def test_cancel_but_one_version_leaves_its_shards(store, shards):
    store.shards.add(1, "maskloop-1-v1", [[7]])
    assert store.shards.cancel(1, but=TAG) == 1
    assert {job.action for job in store.shards.open(1)} == {TAG}


def test_forget_ended_keeps_what_goes_on(store, shards):
    store.jobs.claim(shards[0], "me")
    store.jobs.fail(shards[0], "me", "broken", retry=False)
    assert [job.error for job in store.shards.given_up(1)] == ["broken"]
    store.shards.forget_ended(1)
    assert [job.job_id for job in store.jobs.find()] == [shards[1]]
