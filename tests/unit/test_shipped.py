"""Names of shipped models stand for their folders; a user's own folder of the same name wins."""

import pytest

from maskloop.settings import BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS, Settings
from maskloop.shipped import shipped_model


@pytest.mark.parametrize("folder", [BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS], ids=lambda folder: folder.name)
def test_name_of_a_shipped_model_is_its_folder(folder):
    assert Settings(model=folder.name).model == str(folder)
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("name", ["facebook/mask2former-swin-tiny-coco-instance", "models/mine", "tiny"])
def test_other_names_stay_as_they_are(name):
    assert shipped_model(name) == name


def test_own_folder_of_the_same_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE_PHOTOS.name).mkdir()
    assert shipped_model(BASE_PHOTOS.name) == BASE_PHOTOS.name
