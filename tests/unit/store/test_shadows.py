"""Counters of a shadow model, also when several processes count at once."""

from concurrent.futures import ThreadPoolExecutor


def test_note_many_at_once_loses_none(store):
    def note(index):
        store.shadows.note(1, "m-v1", "m-v2", agreement=0.5, differs=index % 2 == 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(note, range(20)))
    (count,) = store.shadows.of(1)
    assert (count.images, count.differing, count.agreement) == (20, 10, 0.5)


def test_counts_are_kept_by_project_and_pair(store):
    for project_id, champion, shadow in ((1, "m-v1", "m-v2"), (1, "m-v1", "m-v3"), (2, "n-v1", "n-v2")):
        store.shadows.note(project_id, champion, shadow, agreement=1.0, differs=False)
    assert [count.shadow for count in store.shadows.of(1)] == ["m-v2", "m-v3"]
    assert store.shadows.of(3) == ()
