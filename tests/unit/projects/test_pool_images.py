"""Which unlabelled images of a project are taken for pseudo-labels."""

import hashlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from maskloop.errors import ImageError, StoreError
from maskloop.lab.synthetic.shapes import make_image
from maskloop.similarity import perceptual_hash
from maskloop.store.database import Store
from maskloop.store.holdout import content_position
from maskloop_studio.projects.pool_images import PoolRequest, pool_images

CONFIG = """<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">
<Label value="Car"/></BrushLabels></View>"""


def png(seed):
    file = io.BytesIO()
    Image.fromarray(make_image(seed, size_hw=(64, 64)).image_hwc).save(file, "PNG")
    return file.getvalue()


def key_of(data):
    return hashlib.sha256(data).hexdigest()


FILES = {seed: png(seed) for seed in range(60)}
LEARNT = [seed for seed, data in FILES.items() if content_position(key_of(data)) >= 0.2]
JUDGING = [seed for seed in FILES if seed not in LEARNT]


@pytest.fixture
def gather(settings, tmp_path):
    """Return a function that gathers the pool of a project with some unlabelled tasks."""
    store = Store(settings.resolved_database_url)
    counts = {"listed": 0, "fetched": 0}

    def call(contents, *, wanted=100, annotated=(), data=None, **changes):
        tasks = [
            SimpleNamespace(id=number, data={"image": f"/data/{number}.png"} if data is None else data)
            for number in range(len(contents))
        ]

        def iter_tasks(project_id, *, only_unlabelled):
            assert (project_id, only_unlabelled) == (1, True)
            counts["listed"] += 1
            yield from tasks

        def fetch_ahead(addresses, *, task_ids, max_workers):
            assert max_workers < 20
            for _, number in zip(addresses, task_ids, strict=True):
                counts["fetched"] += 1
                yield contents[number]

        services = SimpleNamespace(
            store=store,
            settings=settings.model_copy(update={"min_free_disk_bytes": 0} | changes),
            client=SimpleNamespace(iter_tasks=iter_tasks),
            fetcher=SimpleNamespace(fetch_ahead=fetch_ahead),
        )
        request = PoolRequest(
            project_id=1,
            label_config=CONFIG,
            wanted=wanted,
            annotated=annotated,
            folder=tmp_path / "pool",
        )
        return pool_images(request, services)

    call.counts, call.store = counts, store
    yield call
    store.close()


def test_files_are_named_by_their_content(gather):
    found = gather([FILES[seed] for seed in LEARNT[:3]])
    assert {path.name for path in found} == {key_of(FILES[seed]) for seed in LEARNT[:3]}
    assert all(key_of(path.read_bytes()) == path.name for path in found)


def test_what_may_not_be_learnt_is_left_out(gather, caplog):
    caplog.set_level("INFO")
    near = Image.open(io.BytesIO(FILES[JUDGING[0]])).resize((80, 80))
    for number in range(50):  # a copy of an image that judges, whose own content would be learnt
        file = io.BytesIO()
        near.save(file, "JPEG", quality=95 - number)
        if content_position(key_of(file.getvalue())) >= 0.2:
            break
    judging = key_of(FILES[JUDGING[0]])
    gather.store.holdout.add_hash(judging, perceptual_hash(np.asarray(near)))
    gather.store.holdout.place(1, [judging], fraction=0.2, near_distance=0.2)
    contents = [
        FILES[LEARNT[0]],
        FILES[LEARNT[0]],  # twice
        FILES[JUDGING[1]],
        file.getvalue(),
        b"no image at all",
        ImageError("task 5", expected="an image", got="404", remedy="look"),
        FILES[LEARNT[1]],
    ]
    found = gather(contents, annotated={key_of(FILES[LEARNT[1]])})
    assert [path.name for path in found] == [key_of(FILES[LEARNT[0]])]
    assert "2 unreadable, 2 holdout, 1 annotated" in caplog.text


def test_tasks_without_an_address_are_counted(gather, caplog):
    caplog.set_level("INFO")
    assert gather([b"", b""], data={"text": "no image"}) == ()
    assert "2 unreadable" in caplog.text
    assert gather.counts["fetched"] == 0


def test_no_more_are_fetched_than_wanted(gather):
    contents = [FILES[seed] for seed in LEARNT]
    assert len(gather(contents, wanted=5)) == 5
    assert gather.counts["fetched"] <= 10


def test_the_lot_is_the_same_again_and_no_order_of_the_tasks(gather, tmp_path):
    contents = [FILES[seed] for seed in LEARNT]
    first = gather(contents, wanted=5)
    (tmp_path / "pool" / "pool.json").unlink()
    assert gather(contents, wanted=5) == first
    assert [path.name for path in first] != [key_of(data) for data in contents[:5]]


def test_after_a_kill_the_same_images_without_a_second_look(gather):
    first = gather([FILES[seed] for seed in LEARNT[:3]])
    assert gather([]) == first
    assert gather.counts["listed"] == 1


@pytest.mark.parametrize("text", ["", "{", "3"])
def test_damaged_list_names_its_remedy(gather, tmp_path, text):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "pool.json").write_text(text)
    with pytest.raises(StoreError, match=r"pool\.json"):
        gather([])


def test_list_holds_names_only(gather, tmp_path):
    gather([FILES[LEARNT[0]]])
    assert json.loads((tmp_path / "pool" / "pool.json").read_text()) == [key_of(FILES[LEARNT[0]])]
