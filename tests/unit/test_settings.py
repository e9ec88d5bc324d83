"""Settings come from the environment, then maskloop.toml, and say what is wrong with them."""

import re

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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        pytest.param("MASKLOOP_MODLE", "did you mean MASKLOOP_MODEL?", id="swapped letters"),
        pytest.param("MASKLOOP_TRAIN_STEP", "did you mean MASKLOOP_TRAIN_STEPS?", id="singular"),
        pytest.param("MASKLOOP_LABELSTUDIO_URL", "MASKLOOP_LABEL_STUDIO_URL", id="an alias"),
        pytest.param("maskloop_hme", "did you mean MASKLOOP_HOME?", id="lower case"),
        pytest.param("MASKLOOP_XYZZY", "docs/settings.md", id="like none"),
    ],
)
def test_load_settings_unknown_variable_names_the_nearest(monkeypatch, name, remedy):
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigurationError, match=re.escape(remedy)) as caught:
        load_settings()
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["MASKLOOP_STUDIO_ENV", "MASKLOOP_TORTURE_KILLS", "MASKLOOP_SERVICE_HOST", "MASKLOOP_PORT_9090_TCP"],
)
def test_load_settings_variable_of_others_is_let_be(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    load_settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("modle = 'x'\n", "did you mean model", id="unknown key"),
        pytest.param("[server]\nport = 1\n", "key 'server'", id="a table"),
        pytest.param("model = \n", "readable TOML", id="no TOML"),
        pytest.param("model = '\xff'", "readable TOML", id="no UTF-8"),
    ],
)
def test_load_settings_bad_toml_names_the_place(monkeypatch, tmp_path, text, words):
    (tmp_path / "maskloop.toml").write_bytes(text.encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        load_settings()
    assert "maskloop.toml" in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "ls.example.com/x", "http:///x"])
def test_load_settings_address_without_scheme_or_host_is_refused(monkeypatch, url):
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    with pytest.raises(ConfigurationError, match="http://localhost:8080"):
        load_settings()
