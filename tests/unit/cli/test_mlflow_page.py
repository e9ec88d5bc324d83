"""MLflow's page: on loopback, on our store, and a plain error where its package is not installed."""

from importlib import metadata

import pytest

from maskloop.errors import ConfigurationError, DependencyError
from maskloop_studio.cli.mlflow_page import mlflow_arguments, require_mlflow_page


def test_mlflow_page_serves_our_store_on_loopback(settings):
    settings.registry_file.parent.mkdir(parents=True)
    settings.registry_file.touch()
    arguments = mlflow_arguments(settings, port=5001)
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert arguments[:2] == ["mlflow", "server"]
    assert options["--backend-store-uri"] == f"sqlite:///{settings.home}/mlflow.db"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5001")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param("http://mlflow.example:5000", "open that address in a browser", id="server"),
        pytest.param(None, "maskloop connect", id="no store yet"),
    ],
)
def test_mlflow_page_without_a_local_store_says_what_to_do(settings, uri, words):
    with pytest.raises(ConfigurationError, match=words):
        mlflow_arguments(settings.model_copy(update={"mlflow_tracking_uri": uri}), port=5000)


@pytest.mark.parametrize("installed", [None, "1.0.0"], ids=["not installed", "another version"])
def test_mlflow_page_without_its_package_names_the_pip_line(installed, monkeypatch):
    small = metadata.version("mlflow-skinny")
    version = metadata.version

    def found(name):
        if name != "mlflow":
            return version(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(metadata, "version", found)
    with pytest.raises(DependencyError) as caught:
        require_mlflow_page()
    assert f"pip install 'mlflow=={small}'" in caught.value.remedy
    assert caught.value.got == (installed or "none")
