"""Names of files in exports: safe, and each once on every file system."""

import pytest

from maskloop.curation.snapshots.file_names import FileNames

URIS = {
    "upload": ("/data/upload/3/ab-cat.png", "ab-cat.png"),
    "query": ("https://host/a/b%20c.jpg?token=secret", "b c.jpg"),
    "local files": ("/data/local-files/?d=set/one.tif", "one.tif"),
    "bucket": ("s3://bucket/x/y.webp", "y.webp"),
    "data": ("data:image/jpeg;base64,AAAA", "task-1.jpg"),
    "no suffix": ("https://host/render", "render.jpg"),
    "nothing": ("https://host/", "task-1.jpg"),
    "dots": ("/data/upload/1/..", "task-1.jpg"),
    "device": ("/x/con.png", "_con.png"),
    "characters": ("/x/a%00b%0Ac%3Ad.png", "a_b_c_d.png"),
}


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
def test_name_of_uri(uri):
    assert FileNames().of_uri(uri[0], item="task-1") == uri[1]


def test_names_that_differ_in_case_suffix_or_composition_only_are_told_apart():
    names = FileNames()
    given = ["a.png", "A.png", "a.jpg", "b/a.png", "é.png", "é.png"]
    made = [names.take(name, item=str(index)) for index, name in enumerate(given)]
    assert (made[0], made[3]) == ("a.png", "b/a.png")
    assert len({name.rpartition(".")[0].casefold() for name in made}) == len(given)


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "/abs/x.png", "a/../b.png", "x" * 400 + ".png"])
def test_name_never_leaves_the_folder(name):
    made = FileNames().take(name, item="i")
    assert not {"", ".."} & set(made.split("/"))
    assert all(len(part.encode()) < 255 for part in made.split("/"))
