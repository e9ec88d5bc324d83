"""Settings come from the environment, then maskloop.toml, and say what is wrong with them."""

import pytest

from maskloop.errors import ConfigurationError
from maskloop.settings import BASE_MODEL, Settings, load_settings
from maskloop.types import SegmentationTask


@pytest.fixture(autouse=True)
def _fresh(settings):
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_settings_without_variables_are_embedded(settings):
    assert settings.model == str(BASE_MODEL)
    assert settings.resolved_database_url == f"sqlite:///{settings.home / 'maskloop.db'}"
    assert settings.resolved_tracking_uri == f"sqlite:///{settings.home / 'mlflow.db'}"


def test_settings_label_studio_names_are_read(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://localhost:8080/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret-token")
    loaded = load_settings()
    assert loaded.label_studio_url == "http://localhost:8080"
    assert "secret-token" not in repr(loaded)


def test_settings_toml_file_is_read_and_variable_wins(monkeypatch, tmp_path):
    (tmp_path / "maskloop.toml").write_text('task = "panoptic"\ntrain_after = 3\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKLOOP_TRAIN_AFTER", "5")
    loaded = Settings()
    assert (loaded.task, loaded.train_after) == (SegmentationTask.PANOPTIC, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("MASKLOOP_TASK", "boxes", id="unknown task"),
        pytest.param("MASKLOOP_PORT", "99999", id="no port"),
        pytest.param("MASKLOOP_HOLDOUT_FRACTION", "1.5", id="over one"),
    ],
)
def test_load_settings_bad_value_names_the_setting(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"setting {name.removeprefix('MASKLOOP_').lower()}"):
        load_settings()
