"""Only folders inside our artifacts are ever deleted, however a registry entry names another one."""

import pytest

from maskloop.errors import RegistryError
from maskloop.learning.registry.connection import MlflowConnection


@pytest.fixture
def places(tmp_path):
    """Return the folder of artifacts with one version in it, and a folder beside it that must survive."""
    artifacts, precious = tmp_path / "artifacts", tmp_path / "precious"
    for folder in (artifacts / "version", precious):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (artifacts / "link").symlink_to(precious)
    return artifacts, precious


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{precious}", id="another folder"),
        pytest.param("file://{precious}", id="as an address"),
        pytest.param("{artifacts}/../precious", id="dots"),
        pytest.param("file://{artifacts}/%2e%2e/precious", id="escaped dots"),
        pytest.param("{artifacts}/link", id="link out of it"),
        pytest.param("{artifacts}", id="all artifacts"),
        pytest.param("/", id="root"),
        pytest.param("", id="empty"),
    ],
)
def test_remove_outside_the_artifacts_is_refused_and_deletes_nothing(places, source, monkeypatch):
    artifacts, precious = places
    monkeypatch.chdir(precious)
    connection = MlflowConnection("sqlite://", artifacts)
    with pytest.raises(RegistryError, match="not deleted"):
        connection.remove(source.format(artifacts=artifacts, precious=precious))
    assert (precious / "file").exists()
    assert (artifacts / "version" / "file").exists()


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_remove_inside_deletes_that_folder_alone(places, prefix):
    artifacts, precious = places
    connection = MlflowConnection("sqlite://", artifacts)
    connection.remove(f"{prefix}{artifacts}/version")
    connection.remove(f"{prefix}{artifacts}/version")  # gone already
    assert not (artifacts / "version").exists()
    assert (precious / "file").exists()
