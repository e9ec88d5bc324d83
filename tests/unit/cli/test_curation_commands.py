"""`maskloop review`, `images` and `agreement` from the command line, on a real database and a fake studio."""

import dataclasses
import json
import re
from types import SimpleNamespace

import pytest
from tests.fakes.looped_project import PROJECT, annotate, make_services, png, train
from typer.testing import CliRunner

from maskloop.curation.review import error_classifier
from maskloop.errors import StudioError
from maskloop.lab.synthetic.shapes import make_image
from maskloop.learning.unseen import learnt_images
from maskloop.similarity import perceptual_hash
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.sessions import now
from maskloop.types import EditCounts
from maskloop_studio.cli.main import app
from maskloop_studio.projects.audit_trail import command_line_actor


class TabStudio:
    """The part of Label Studio that tabs and names need, in memory."""

    def __init__(self, studio):
        self._studio = studio
        self.data = {}  # task -> its data
        self.tabs, self.accounts = {}, []

    def __getattr__(self, name):
        return getattr(self._studio, name)

    def users(self):
        if not self.accounts:
            raise StudioError("users", expected="an answer", got="none", remedy="start it")
        return self.accounts

    def task(self, task_id, *, project_id=None):
        return SimpleNamespace(id=task_id, data=self.data[task_id]) if task_id in self.data else None

    def update_task(self, task_id, *, data):
        self.data[task_id] = dict(data)

    def ids_with_number(self, project_id, field, *, size=500):
        return [task for task, data in self.data.items() if field in data][:size]

    def views(self, project_id):
        return [{"id": number, "data": data} for number, data in self.tabs.items()]

    def create_view(self, project_id, data):
        self.tabs[len(self.tabs) + 1] = data

    def delete_view(self, view_id):
        del self.tabs[view_id]


@pytest.fixture
def services(settings):
    made = make_services(settings)
    made.client = TabStudio(made.client)
    yield made
    made.close()


@pytest.fixture
def run(services, monkeypatch):
    """Run a command with these services; return what it prints."""
    monkeypatch.setattr("maskloop_studio.services.process_services", lambda: services)

    def do(*arguments, code=0, error=None):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        assert error is None or error in result.stderr + str(result.exception)
        do.stderr = result.stderr
        return result.stdout

    return do


def draw(services, task_id, annotator, segments, *, size=48):
    """Store one more annotation of a task."""
    saved = services.store.annotations.save(
        AnnotationSnapshot(
            annotation_id=10_000 * annotator + task_id,
            project_id=PROJECT,
            task_id=task_id,
            updated_at=now(),
            state="submitted",
            content={"result": [], "lead_time": 20.0, "completed_by": annotator},
            label_config="<View/>",
            split="train",
            read_at=now(),
        )
    )
    masks = DerivedMasks(
        image_key=services.image_cache.put(png(task_id, size)),
        image_uri="/a.png",
        size_hw=(size, size),
        segments=segments,
        edits=EditCounts(added=1),
        model_version=None,
    )
    services.store.corrections.save(saved.version_id, masks)


@pytest.fixture
def drawn_twice(services):
    """Task 3 as two annotators drew it: alike, but for the class of one object."""
    segments = make_image(3, size_hw=(48, 48), domain="shifted").segments
    other = next(one.label for one in make_image(4).segments if one.label != segments[0].label)
    draw(services, 3, 5, segments)
    draw(services, 3, 9, (dataclasses.replace(segments[0], label=other), *segments[1:]))


def accounts(*names):
    return [
        SimpleNamespace(id=number, name=name, email=f"{number}@example.org")
        for number, name in zip((5, 9), names, strict=True)
    ]


@pytest.mark.parametrize(
    ("names", "hidden", "expected"),
    [
        (("Ada Byron", "Alan Turing"), False, ["Ada Byron", "Alan Turing"]),
        (("Ada", "Ada"), False, ["Ada (5)", "Ada (9)"]),
        (("", "\x1b[2JEve\n"), False, ["5@example.org", "[2JEve"]),
        ((), False, ["user 5", "user 9"]),
        (("Ada", "Alan"), True, ["annotator A", "annotator B"]),
    ],
    ids=["names", "one name twice", "none, control characters", "Label Studio away", "hidden"],
)
def test_agreement_names_annotators(run, services, drawn_twice, names, hidden, expected):
    services.client.accounts = accounts(*names) if names else []
    services.settings = services.settings.model_copy(update={"hide_annotators": hidden})
    answer = json.loads(run("agreement", PROJECT, "--json"))
    assert answer["pairs"][0]["annotators"] == expected
    assert list(answer["seconds_a_region"]) == expected


def test_agreement_counts_what_two_annotators_called_otherwise(run, services, drawn_twice):
    answer = json.loads(run("agreement", PROJECT, "--json"))
    assert (answer["images"], answer["relabelled"][0]["regions"]) == (1, 1)
    assert 0 < answer["whole"]["pq"] < 1
    assert "1 regions are" in run("agreement", PROJECT)


def test_agreement_leaves_annotations_with_boxes_out_and_says_so(run, services, drawn_twice):
    segments = make_image(3, size_hw=(48, 48), domain="shifted").segments
    boxes = tuple(dataclasses.replace(one, is_box=True) for one in segments)
    draw(services, 4, 5, segments)
    draw(services, 4, 9, (*segments[1:], boxes[0]))
    answer = json.loads(run("agreement", PROJECT, "--json"))
    assert (answer["images"], answer["left_out_for_boxes"]) == (1, 1)
    assert "1 annotated images with boxes are not compared" in run("agreement", PROJECT)


def test_agreement_without_two_annotators_says_so(run, services):
    annotate(services, 3)
    assert "no image has annotations of two annotators" in run("agreement", PROJECT)


@pytest.fixture
def copies(services):
    """Tasks 1, 2 and 3 have one image in two forms; 4 has another."""
    for task_id, seed in ((1, 20), (2, 20), (3, 20), (4, 33)):
        draw(services, task_id, 5, make_image(seed, size_hw=(48, 48)).segments)
    picture_hash = perceptual_hash(make_image(20).image_hwc)
    keys = {one.task_id: one.image_key for one in services.store.corrections.of(PROJECT)}
    for task_id in (1, 2, 3):
        services.store.holdout.add_hash(keys[task_id], picture_hash)
    services.store.holdout.add_hash(keys[4], perceptual_hash(make_image(33).image_hwc))
    services.client.data = {task: {"image": "/a.png", "note": task} for task in range(1, 5)}


def test_images_lists_pairs_and_puts_groups_into_a_tab_and_takes_it_away(run, services, copies):
    answer = json.loads(run("images", PROJECT, "--duplicates", "--tab", "--json"))
    assert {tuple(one["tasks"]) for one in answer["duplicates"]} == {(1, 2), (1, 3), (2, 3)}
    assert "outliers" not in answer
    groups = {task: data.get("maskloop_duplicates") for task, data in services.client.data.items()}
    assert groups == {1: 1, 2: 1, 3: 1, 4: None}
    (tab,) = services.client.tabs.values()
    assert (tab["title"], tab["ordering"]) == ("maskloop: duplicates", ["tasks:data.maskloop_duplicates"])
    assert "3 tasks" in run("images", PROJECT, "--clear")
    entry = services.store.audit.newest(PROJECT, limit=1)[0].entry
    assert (entry.action, entry.reason, entry.facts) == ("deleted", "maskloop images --clear", {"tasks": 3})
    assert (entry.subject, entry.actor) == ("the tab of duplicates", command_line_actor())
    assert services.client.data == {task: {"image": "/a.png", "note": task} for task in range(1, 5)}
    assert services.client.tabs == {}


def test_review_cleared_is_recorded(run, services):
    services.client.tabs[1] = {"title": "maskloop: review"}
    run("review", PROJECT, "--clear")
    entry = services.store.audit.newest(PROJECT, limit=1)[0].entry
    assert (entry.action, entry.reason) == ("deleted", "maskloop review --clear")
    assert services.client.tabs == {}


def test_images_without_tab_changes_nothing_in_label_studio(run, services, copies):
    assert "duplicate: tasks [1, 2], nearly the same" in run("images", PROJECT)
    assert services.client.tabs == {}
    assert all("maskloop_duplicates" not in data for data in services.client.data.values())


@pytest.fixture
def reviewed(services, monkeypatch):
    """Eight annotated images; no version but the base model, which has learnt from none."""
    monkeypatch.setattr(error_classifier, "TREES", 10)
    monkeypatch.setattr(error_classifier, "MOST_ROUNDS", 2)
    services.store.projects.save(PROJECT, services.client.project(PROJECT).label_config)
    for seed in range(8):
        annotate(services, seed, size=64)


def test_review_lists_suspicions_writes_the_gallery_and_keeps_decisions(run, reviewed, tmp_path):
    page = tmp_path / "review.html"
    answer = json.loads(run("review", PROJECT, "--no-tab", "--top", 5, "--html", page, "--json"))
    assert (answer["images"], answer["unseen"], len(answer["suspicions"])) == (8, 0, 5)
    scores = [one["score"] for one in answer["suspicions"]]
    assert scores == sorted(scores, reverse=True)
    assert page.read_text().count("data:image/") == 5
    first, second = (one["number"] for one in answer["suspicions"][:2])
    assert f"kept as right: {first}" in run("review", PROJECT, "--right", first, "--wrong", second)
    again = json.loads(run("review", PROJECT, "--no-tab", "--top", 500, "--json"))
    boxes = [(one["task"], one["box_yxyx"], one["missing"]) for one in again["suspicions"]]
    assert again["confirmed"] == 1
    right = answer["suspicions"][0]
    assert (right["task"], right["box_yxyx"], right["missing"]) not in boxes


def test_review_of_some_kinds_shows_no_other_and_says_which(run, reviewed, tmp_path):
    page = tmp_path / "review.html"
    asked = ["--kind", "border, Wrong-class", "--kind", "overlooked"]
    answer = json.loads(run("review", PROJECT, "--no-tab", *asked, "--top", 500, "--html", page, "--json"))
    kinds = ["overlooked", "wrong class", "poorly drawn border"]
    assert answer["kinds"] == kinds
    assert {one["kind"] for one in answer["suspicions"]} == set(kinds)
    assert "Review of project 7: overlooked, wrong class, poorly drawn border" in page.read_text()
    shown = run("review", PROJECT, "--no-tab", "--kind", "overlooked")
    assert "suspicions of overlooked" in shown
    assert "wrong class" not in shown


@pytest.mark.parametrize("words", ["bordr", "border,,split", ""])
def test_review_of_an_unknown_kind_names_those_there_are(run, reviewed, words):
    run("review", PROJECT, "--kind", words, code=1, error="expected overlooked, spurious, wrong class")


def test_review_does_not_review_boxes_and_says_how_many(run, services, reviewed):
    first, second, *_ = services.store.corrections.of(PROJECT)
    for one, boxes in ((first, first.segments), (second, second.segments[:1])):
        segments = tuple(dataclasses.replace(part, is_box=part in boxes) for part in one.segments)
        masks = DerivedMasks(
            image_key=one.image_key,
            image_uri=one.image_uri,
            size_hw=one.size_hw,
            segments=segments,
            edits=one.edits,
            model_version=None,
        )
        services.store.corrections.save(one.version_id, masks)
    answer = json.loads(run("review", PROJECT, "--no-tab", "--top", 500, "--json"))
    assert f"{len(first.segments) + 1} regions are boxes, which are not reviewed; 1 images" in run.stderr
    assert answer["images"] == 7
    assert first.task_id not in {one["task"] for one in answer["suspicions"]}
    box = list(second.segments[0].box_yxyx)
    drawn = [one for one in answer["suspicions"] if one["task"] == second.task_id and not one["missing"]]
    assert box not in [one["box_yxyx"] for one in drawn]
    assert len(drawn) == len(second.segments) - 1


def test_review_of_an_unknown_number_ends_with_an_error(run, reviewed):
    run("review", PROJECT, "--right", 12345, code=1, error="12345")


def test_review_of_nothing_says_what_is_missing(run, services):
    run("review", PROJECT, "--no-tab", code=1, error="annotate more tasks")


def test_review_names_images_that_are_gone_and_ends_with_one(run, services, reviewed, monkeypatch):
    gone = services.store.corrections.of(PROJECT)[0]
    services.image_cache.path(gone.image_key).unlink()

    def away(uri, *, task_id):
        raise StudioError(f"task {task_id}", expected="an image", got="404", remedy="upload it again")

    services.fetcher = SimpleNamespace(fetch=away, close=lambda: None)
    shown = run("review", PROJECT, "--no-tab", code=1)
    assert "7 images reviewed" in shown
    assert f"not readable: task {gone.task_id}" in shown


def test_review_by_folds_judges_what_every_version_has_learnt_from(run, services, reviewed):
    train(services, "maskloop train")
    version = services.registry.versions(f"maskloop-{PROJECT}")[-1]
    learnt = len(learnt_images([version])[version.number].tasks)
    assert 0 < learnt <= 8
    answer = json.loads(run("review", PROJECT, "--no-tab", "--folds", 2, "--json"))
    assert (answer["images"], answer["unseen"]) == (8, 0)
    assert f"looks at {8 - learnt} images" in run.stderr or learnt == 8
    judged = [int(found) for found in re.findall(r"to judge (\d+) others", run.stderr)]
    assert (len(judged), sum(judged)) == (2, learnt)
    assert not (services.settings.runs_dir / f"review-{PROJECT}").exists()
