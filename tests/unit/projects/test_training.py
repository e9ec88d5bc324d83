from types import SimpleNamespace

from maskloop_studio.projects.training import _frozen_corrections


class FakeBook:
    """Keeps every version; only the newest of an annotation stands."""

    def __init__(self):
        self.versions = {}

    def of(self, project_id, *, split):
        newest = {one.annotation_id: one for one in self.versions.values()}
        return tuple(one for one in newest.values() if (one.task_id == 1) is (split == "holdout"))

    def at(self, version_ids):
        return tuple(self.versions[number] for number in sorted(version_ids))


def test_frozen_corrections_after_a_kill_are_what_they_were(settings, make_correction):
    book = FakeBook()
    for number in (1, 2, 3):
        book.versions[number] = make_correction(version_id=number, task_id=number, annotation_id=number)
    services = SimpleNamespace(store=SimpleNamespace(corrections=book), settings=settings)
    job = SimpleNamespace(project_id=1, name="training-5")
    first = _frozen_corrections(job, services)
    book.versions[4] = make_correction(version_id=4, task_id=2, annotation_id=2)  # corrected once more
    book.versions[5] = make_correction(version_id=5, task_id=9, annotation_id=9)  # new
    assert _frozen_corrections(job, services) == first
    assert [[one.version_id for one in part] for part in first] == [[2, 3], [1]]
    later = _frozen_corrections(SimpleNamespace(project_id=1, name="training-6"), services)
    assert [[one.version_id for one in part] for part in later] == [[3, 4, 5], [1]]
