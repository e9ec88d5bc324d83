"""Prelabelling against a Label Studio in memory: once each, in order, whatever happens meanwhile."""

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from tests.fakes.prelabel_studio import predict_task, refusal
from tests.waiting import until

from maskloop.errors import StudioError
from maskloop.masks import mask_to_segment
from maskloop.queue.lease import JobCancelled
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.labelstudio.models import to_project
from maskloop_studio.prelabel import progress
from maskloop_studio.prelabel import push as pushing
from maskloop_studio.prelabel import run as run_module
from maskloop_studio.prelabel import score as scoring
from maskloop_studio.prelabel.clean_up import clean_up
from maskloop_studio.prelabel.push import PushTarget
from maskloop_studio.prelabel.run import prelabel_project
from maskloop_studio.projects.prediction_plan import PredictionPlan, plan_project
from maskloop_studio.projects.task_order import TITLE
from maskloop_studio.runtime.tasks import work_on

V1, V2, V3 = (f"maskloop-1-v{number}" for number in (1, 2, 3))


def test_prelabel_every_task_gets_one_prediction_in_order(services, studio):
    tasks = studio.add_tasks(150)
    studio.annotations[tasks[0]] = []
    report = prelabel_project(1, services)
    assert (report.pushed, report.failed, report.in_hand) == (148, 1, 0)
    assert report.reasons[0].startswith("task 99: ")
    shown = studio.of(V1)
    assert set(shown) == set(tasks) - {tasks[0], 99}
    assert len(studio.predictions) == 148
    assert studio.model_version == V1
    assert TITLE in [tab["title"] for tab in studio.tabs]
    groups = {}
    for task_id, (score, cluster) in shown.items():
        groups.setdefault(cluster, []).append((score, task_id))
    assert len(groups) == 4
    for tasks_of_group in groups.values():
        served = [task_id for _, task_id in sorted(tasks_of_group)]
        assert len({task_id % 4 for task_id in served}) == 1
        confidences = [task_id % 10 for task_id in served]
        assert confidences == sorted(confidences)
    (again,) = services.store.jobs.find()  # no shard is left; the task without an image is tried again
    assert (again.kind, again.status) == (JobKind.PRELABEL, JobStatus.WAITING)


def test_prelabel_task_annotated_since_it_was_listed_is_predicted_once(services, studio, predicted):
    tasks = studio.add_tasks(12)
    book = services.store.annotations
    book.labelled_tasks = lambda project_id, newest=None: (tasks[3],)  # Label Studio still lists it as open
    report = prelabel_project(1, services)
    assert sorted(predicted) == tasks
    assert (report.pushed, report.failed) == (11, 0)


def test_prelabel_task_whose_annotation_is_deleted_is_predicted(services, studio):
    tasks = studio.add_tasks(5)
    studio.annotations[tasks[3]] = []
    services.store.annotations.labelled_tasks = lambda project_id, newest=None: tuple(studio.annotations)
    prelabel_project(1, services)
    assert set(studio.of(V1)) == set(tasks) - {tasks[3]}
    del studio.annotations[tasks[3]]
    prelabel_project(1, services)
    assert set(studio.of(V1)) == set(tasks)


def test_prelabel_again_does_nothing_but_what_failed(services, studio, predicted):
    studio.add_tasks(101)
    prelabel_project(1, services)
    predicted.clear()
    report = prelabel_project(1, services)
    assert (report.pushed, report.changed, predicted) == (0, 0, [99])


def test_prelabel_progress_counts_scored_and_pushed(services, studio, monkeypatch):
    monkeypatch.setattr(progress, "COUNT_S", 0.0)
    studio.add_tasks(250)
    seen = []
    prelabel_project(1, services, on_progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {500}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == 496  # two tasks have no image


@pytest.mark.parametrize("after", [False, True], ids=["before it was kept", "after it was kept"])
def test_push_refused_for_the_moment_is_tried_again_and_comes_once(services, studio, after):
    studio.add_tasks(12)
    refused = set()

    def refuse(task_id):
        if task_id % 3 == 0 and task_id not in refused:
            refused.add(task_id)
            raise refusal(503 if task_id % 2 else 429)

    setattr(studio, "after_create" if after else "before_create", refuse)
    assert prelabel_project(1, services).failed == 0
    assert len(refused) == 4
    assert (len(studio.predictions), len(studio.of(V1))) == (12, 12)


def test_push_refused_for_good_is_reported_and_the_rest_goes_on(services, studio):
    studio.add_tasks(5)

    def refuse(task_id):
        if task_id == 3:
            raise refusal(400)

    studio.before_create = refuse
    report = prelabel_project(1, services)
    assert (report.pushed, report.failed) == (4, 1)
    assert "status 400" in report.reasons[0]
    studio.before_create = lambda task_id: None
    assert prelabel_project(1, services).pushed == 1


@pytest.mark.parametrize("status", [401, 503, None], ids=str)
def test_push_trouble_of_no_single_task_ends_the_job_and_is_taken_up_again(services, studio, status):
    studio.add_tasks(6)

    def refuse(task_id):
        if task_id > 3:
            raise refusal(status)

    studio.before_create = refuse
    with pytest.raises(StudioError):
        prelabel_project(1, services)
    assert set(studio.of(V1)) == {1, 2, 3}
    studio.before_create = lambda task_id: None
    assert prelabel_project(1, services).pushed == 3
    assert len(studio.predictions) == 6


def test_push_tasks_in_hand_labelled_or_gone_are_left_alone(services, studio, monkeypatch):
    studio.add_tasks(6)

    def score_and_change(*arguments, **values):
        given_up = scoring.score_unlabelled(*arguments, **values)
        studio.drafts.add(1)
        studio.annotations[2] = []
        del studio.tasks[3]
        return given_up

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "score_unlabelled", score_and_change)
        report = prelabel_project(1, services)
    assert (report.pushed, report.in_hand, report.failed) == (3, 1, 0)
    assert set(studio.of(V1)) == {4, 5, 6}
    studio.drafts.clear()
    assert prelabel_project(1, services).pushed == 1


def test_push_prediction_stored_by_another_way_gets_score_and_cluster(services, studio):
    studio.add_tasks(4)
    live = studio.add_prediction(2, V1, score=0.9)
    report = prelabel_project(1, services)
    assert (report.pushed, report.changed) == (3, 1)
    assert studio.predictions[live]["cluster"] is not None
    assert len(studio.predictions) == 4


@pytest.mark.parametrize("annotated", [False, True], ids=["open", "annotated"])
def test_push_prediction_that_comes_in_meanwhile_stays_and_ours_goes(services, studio, annotated):
    studio.add_tasks(4)
    live = []

    def open_task(task_id):
        if task_id == 2:
            live.append(studio.add_prediction(2, V1))
            if annotated:
                studio.annotations[2] = [live[0]]

    studio.before_create = open_task
    prelabel_project(1, services)
    assert [one["id"] for one in studio.predictions_of(2)] == live
    assert studio.predictions[live[0]]["cluster"] is not None
    assert services.store.pushes.of(1, V1)[2] == live[0]


def test_prelabel_predictions_deleted_in_label_studio_come_back(services, studio):
    studio.add_tasks(4)
    prelabel_project(1, services)
    studio.predictions.clear()
    assert prelabel_project(1, services).pushed == 4
    assert len(studio.predictions) == 4


def test_new_tasks_few_are_put_in_and_the_rest_stays(services, studio, predicted):
    studio.add_tasks(40)
    prelabel_project(1, services)
    before = studio.of(V1)
    predicted.clear()
    new = studio.add_tasks(8)
    report = prelabel_project(1, services)
    assert (report.pushed, report.changed, sorted(predicted)) == (8, 0, new)
    after = studio.of(V1)
    assert {task: after[task] for task in before} == before
    assert all(after[task][1] == after[task % 4 + 4][1] for task in new)


def test_new_version_keeps_the_numbers_of_clusters(services, studio):
    studio.add_tasks(40)
    prelabel_project(1, services)
    services.registry.promote("maskloop-1", 2)
    assert prelabel_project(1, services).pushed == 40
    clusters = [{task: one[1] for task, one in studio.of(tag).items()} for tag in (V1, V2)]
    # Label Studio would count a task under the largest number of any version
    assert {task: number + 1000 for task, number in clusters[0].items()} == clusters[1]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        pytest.param(0, {V3: 6}, id="none"),
        pytest.param(1, {V2: 6, V3: 6}, id="one"),
        pytest.param(2, {V1: 6, V2: 6, V3: 6}, id="two"),
    ],
)
def test_clean_up_keeps_what_a_rollback_shows(services, studio, keep, left):
    services.settings = services.settings.model_copy(update={"keep_predictions": keep})
    studio.add_tasks(6)
    for number in (1, 2, 3):
        services.registry.promote("maskloop-1", number)
        prelabel_project(1, services)
    assert {tag: len(studio.of(tag)) for tag in (V1, V2, V3) if studio.of(tag)} == left
    assert set(services.store.pushes.versions(1)) == set(left) == services.store.scores.versions(1)


def test_clean_up_leaves_what_annotations_may_name_and_what_is_not_ours(services, studio):
    services.settings = services.settings.model_copy(update={"keep_predictions": 0})
    studio.add_tasks(5)
    prelabel_project(1, services)
    studio.annotations[1] = []
    studio.drafts.add(2)
    foreign = studio.add_prediction(3, "somebody-else")
    services.registry.promote("maskloop-1", 2)
    prelabel_project(1, services)
    assert set(studio.of(V1)) == {1, 2}
    assert foreign in studio.predictions
    studio.drafts.clear()
    prelabel_project(1, services)
    assert set(studio.of(V1)) == {1}
    told = [one.entry for one in services.store.audit.newest(1, limit=9) if one.entry.action == "deleted"]
    assert [one.facts["predictions"] for one in reversed(told)] == [3, 1]
    assert {one.subject for one in told} == {f"stored predictions of {V1}"}


def test_clean_up_that_ends_early_has_recorded_what_it_removed(services, studio, monkeypatch):
    services.settings = services.settings.model_copy(update={"keep_predictions": 0, "push_connections": 1})
    studio.add_tasks(4)
    prelabel_project(1, services)
    monkeypatch.setattr("maskloop_studio.prelabel.clean_up.PAGE_TASKS", 2)
    real, asked = services.client.task_stands, []

    def task_stands(*arguments):
        asked.append(arguments)
        if len(asked) == 2:
            raise StudioError("tasks", expected="an answer", got="none", remedy="start it")
        return real(*arguments)

    services.registry.promote("maskloop-1", 2)
    target = PushTarget(project_id=1, tag=V2, client=services.client, store=services.store)
    champion = services.registry.peek("maskloop-1", 2)
    monkeypatch.setattr(services.client, "task_stands", task_stands)
    monkeypatch.setattr("maskloop_studio.prelabel.clean_up.patiently", lambda call: call())
    monkeypatch.setattr(services.client, "project", lambda _: SimpleNamespace(model_version=V2))
    with pytest.raises(StudioError):
        clean_up(target, champion, registry=services.registry, settings=services.settings, check=lambda: None)
    entry = services.store.audit.newest(1, limit=1)[0].entry
    assert (entry.action, entry.facts) == ("deleted", {"predictions": 2})


def test_promotion_meanwhile_ends_with_the_new_champion_shown(services, studio, monkeypatch):
    monkeypatch.setattr(progress, "CHAMPION_S", 0.0)
    studio.add_tasks(6)

    def promote(task_id):
        if services.registry.alias("maskloop-1", "champion") == 1:
            services.registry.promote("maskloop-1", 2)

    studio.before_create = promote
    report = prelabel_project(1, services)
    assert (report.model_version, studio.model_version, len(studio.of(V2))) == (V2, V2, 6)
    assert services.store.shards.open(1) == ()


def test_cancelled_renewal_ends_its_shards(services, studio):
    studio.add_tasks(300)
    steps = iter(range(3))

    def end_soon(done, total):
        if next(steps, None) is None:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        prelabel_project(1, services, on_progress=end_soon)
    assert services.store.shards.open(1) == ()
    assert prelabel_project(1, services).pushed == 297


def test_shards_are_shared_and_a_dead_workers_is_taken_over(services, studio, predicted):
    studio.add_tasks(300)
    (stale,) = services.store.shards.add(1, V1, [range(1, 65)])
    services.store.jobs.claim(stale, "gone", lease_s=0.2)
    stop, done = threading.Event(), []

    def help_out():
        while not stop.wait(0.005):
            for job in services.store.shards.due(1)[:1]:
                if work_on(job.job_id, services) is JobStatus.DONE:
                    done.append(job.job_id)

    helper = threading.Thread(target=help_out)
    helper.start()
    try:
        report = prelabel_project(1, services, on_progress=lambda *_: until(lambda: done))
    finally:
        stop.set()
        helper.join()
    assert (report.pushed, stale in done) == (297, True)
    assert sorted(predicted) == sorted(studio.tasks)


def _shard(services, studio, count):
    tasks = studio.add_tasks(count)
    (number,) = services.store.shards.add(1, V1, [tasks])
    return services.store.jobs.get(number)


def test_score_shard_has_few_chunks_under_way_at_once(services, studio, images, monkeypatch):
    together, begun, kept = threading.Barrier(scoring.CHUNKS_AT_ONCE, timeout=10), [], []
    predict = images.predict

    def predict_together(inputs, **others):
        begun.append(len(begun) - len(kept))
        together.wait()
        return predict(inputs, **others)

    monkeypatch.setattr(images, "predict", predict_together)
    job = _shard(services, studio, 6 * scoring.CHUNK_TASKS)
    done = scoring.score_shard(job, services, on_progress=lambda count, _: kept.append(count))
    assert (done, kept) == (48, [0, 8, 16, 24, 32, 40, 48])
    assert max(begun) <= scoring.CHUNKS_AT_ONCE


def test_prelabel_most_objects_comes_first_where_most_is_found(services, studio, images, monkeypatch):
    services.settings = services.settings.model_copy(update={"strategy": "most-objects"})
    segment = mask_to_segment(np.ones((2, 2), dtype=bool), label="disc")
    found = {1: 2, 2: 0, 3: 7, 4: 5, 5: 1}
    monkeypatch.setattr(
        images,
        "predict",
        lambda inputs, **_others: [
            dataclasses.replace(predict_task(image.task_id), segments=(segment,) * found[image.task_id])
            for image in inputs
        ],
    )
    _with_regions(monkeypatch)
    studio.add_tasks(5)
    prelabel_project(1, services)
    shown = studio.of(V1)
    assert sorted(shown, key=shown.get) == [3, 4, 1, 5, 2]


def test_score_shard_that_fails_midway_keeps_what_came_before(services, studio, images, monkeypatch):
    predict = images.predict

    def fail_at_12(inputs, **others):
        if 12 in [image.task_id for image in inputs]:
            raise StudioError("model", expected="an answer", got="none", remedy="wait")
        return predict(inputs, **others)

    job = _shard(services, studio, 40)
    monkeypatch.setattr(images, "predict", fail_at_12)
    with pytest.raises(StudioError):
        scoring.score_shard(job, services, on_progress=lambda *_: None)
    assert sorted(services.store.scores.known(1, V1, range(1, 41))) == list(range(1, 9))
    monkeypatch.setattr(images, "predict", predict)
    assert scoring.score_shard(job, services, on_progress=lambda *_: None) == 32
    assert len(services.store.scores.known(1, V1, range(1, 41))) == 40


def test_score_shard_of_a_version_that_is_replaced_ends_early(services, studio, predicted, monkeypatch):
    monkeypatch.setattr(scoring, "CHAMPION_S", 0.0)
    job = _shard(services, studio, 64)

    def promote_another(done, _total):
        if done == 16:
            services.registry.promote("maskloop-1", 2)

    assert scoring.score_shard(job, services, on_progress=promote_another) == 16
    assert len(services.store.scores.known(1, V1, range(1, 65))) == 16


def test_renewal_job_tells_what_it_came_to(services, studio):
    studio.add_tasks(3)
    number = services.store.jobs.request(JobKind.PRELABEL, 1)
    assert work_on(number, services) is JobStatus.DONE
    outcome = services.store.jobs.get(number).outcome
    assert (outcome["pushed"], outcome["model_version"], set(outcome["seconds"])) == (
        3,
        V1,
        {"score", "arrange", "push", "clean up"},
    )


def test_planning_ahead_is_bounded(services, studio, monkeypatch):
    monkeypatch.setattr(scoring, "OPEN_SHARDS", 2)
    monkeypatch.setattr(scoring, "SHARD_TASKS", 10)
    studio.add_tasks(95)
    most = []
    prelabel_project(1, services, on_progress=lambda *_: most.append(services.store.shards.open_count(1)))
    assert max(most) <= 2
    assert len(studio.predictions) == 95


def test_pushes_go_out_at_the_same_time(services, studio):
    studio.add_tasks(8)
    together = threading.Barrier(4, timeout=10)
    studio.before_create = lambda task_id: together.wait()
    assert prelabel_project(1, services).pushed == 8


def test_is_passing_by_status():
    told = {status: pushing.is_passing(refusal(status)) for status in (None, 400, 401, 404, 408, 429, 500)}
    assert told == {None: True, 400: False, 401: False, 404: False, 408: True, 429: True, 500: True}


def test_failed_tasks_are_tried_again_later_and_later_until_they_come(services, studio, images, monkeypatch):
    studio.add_tasks(100)
    delays = []
    for attempt in (1, 2, 3):
        (number,) = [job.job_id for job in services.store.jobs.find() if job.status is JobStatus.WAITING] or [
            services.store.jobs.request(JobKind.PRELABEL, 1)
        ]
        services.store.jobs.retry(number)
        assert work_on(number, services) is JobStatus.DONE
        assert services.store.jobs.get(number).outcome["attempts"] == attempt
        (again,) = services.store.jobs.find(statuses=[JobStatus.WAITING])
        delays.append((again.due_at - again.created_at).total_seconds())
    assert delays == [30.0, 60.0, 120.0]
    assert "task 99: " in again.action
    assert 99 not in studio.of(V1), "nothing is stored for a task without a prediction"

    monkeypatch.setattr(images, "predict", lambda inputs, **_others: [predict_task(1) for _ in inputs])
    services.store.jobs.retry(again.job_id)
    assert work_on(again.job_id, services) is JobStatus.DONE
    assert 99 in studio.of(V1)
    assert services.store.jobs.find(statuses=[JobStatus.WAITING]) == ()


def _with_regions(monkeypatch):
    monkeypatch.setattr(PredictionPlan, "regions", lambda _self, _prediction, **_others: [{"id": "r"}])


def test_empty_prediction_of_a_failed_image_is_replaced(services, studio, monkeypatch):
    _with_regions(monkeypatch)
    studio.add_tasks(4)
    stale = studio.add_prediction(2, V1, score=0.0)
    report = prelabel_project(1, services)
    assert (report.pushed, report.changed, report.replaced) == (3, 1, 1)
    assert studio.predictions[stale]["result"] == [{"id": "r"}]
    assert studio.predictions[stale]["score"] == services.store.scores.placed(1, V1, [2])[2]


def test_empty_prediction_that_came_after_ours_was_deleted_is_replaced(services, studio, monkeypatch):
    _with_regions(monkeypatch)
    studio.add_tasks(4)
    prelabel_project(1, services)
    (number,) = (one["id"] for one in studio.predictions_of(3))
    del studio.predictions[number]
    stale = studio.add_prediction(3, V1, score=0.0)
    report = prelabel_project(1, services)
    assert (report.pushed, report.replaced) == (0, 1)
    assert studio.predictions[stale]["result"] == [{"id": "r"}]
    assert prelabel_project(1, services).replaced == 0


def test_prediction_that_the_model_found_empty_is_left_alone(services, studio, predicted):
    studio.add_tasks(4)
    prelabel_project(1, services)
    before = dict(studio.predictions)
    predicted.clear()
    assert prelabel_project(1, services).changed == 0
    assert (studio.predictions, predicted) == (before, [])


def test_label_config_is_fetched_once_a_prelabelling_and_not_once_a_shard(services, studio, monkeypatch):
    monkeypatch.setattr(scoring, "SHARD_TASKS", 5)
    studio.add_tasks(60)
    prelabel_project(1, services)
    few = studio.config_reads
    studio.add_tasks(200)
    studio.config_reads = 0
    prelabel_project(1, services)
    assert studio.config_reads <= few


def test_label_config_is_fetched_once_by_a_worker_of_many_shards(services, studio):
    renewal = services.store.jobs.request(JobKind.PRELABEL, 1)
    services.store.jobs.claim(renewal, "elsewhere")
    tasks = studio.add_tasks(40)
    for number in services.store.shards.add(1, V1, [tasks[first : first + 10] for first in range(0, 40, 10)]):
        assert work_on(number, services) is JobStatus.DONE
    assert studio.config_reads == 1
    assert len(services.store.scores.known(1, V1, tasks)) == 40


TWO_IMAGES = (
    '<View><Image name="rgb" value="$rgb"/><Image name="ir" value="$ir"/>'
    '<BrushLabels name="brush" toName="rgb,ir"><Label value="disc"/></BrushLabels></View>'
)


def test_task_with_several_images_has_one_prediction_with_the_least_sure_score(services, studio, monkeypatch):
    monkeypatch.setattr(
        PredictionPlan,
        "regions",
        lambda _self, prediction, *, image, **_others: [{"to_name": image.to_name, "at": image.address}],
    )
    monkeypatch.setattr(
        studio, "project", lambda _id: to_project({"id": 1, "label_config": TWO_IMAGES, "model_version": V1})
    )
    (task,) = studio.add_tasks(1)
    stand = dataclasses.replace(studio.task_stands(1, [task])[task], data={"rgb": "a", "ir": "b"})
    confidences = {"a": 0.9, "b": 0.2}
    pipeline = SimpleNamespace(
        predict=lambda inputs, **_others: [
            dataclasses.replace(predict_task(1), confidence=confidences[image.uri]) for image in inputs
        ]
    )
    plan = plan_project(
        1,
        services.registry.champion("maskloop-1"),
        settings=services.settings,
        client=studio,
        projects=services.store.projects,
    )
    (row,) = scoring._score([stand], plan=plan, source="m", images=pipeline)
    assert row.confidence == 0.2
    assert row.regions == [{"to_name": "rgb", "at": "a"}, {"to_name": "ir", "at": "b"}]
