"""A real Label Studio behind a sub-path and an authority of one's own, with both kinds of tokens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from tests.fakes.prefix_proxy import run_prefix_proxy
from tests.fakes.tls import server_context, write_authority

from maskloop.errors import ImageError, StudioCause, StudioError
from maskloop.settings import Settings
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.images.fetcher import ImageFetcher
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.labelstudio.models import Presence

pytestmark = pytest.mark.studio

IMAGE = b"\x89PNG any bytes"


@dataclass(frozen=True, kw_only=True)
class Front:
    """What a user has to know of the Label Studio behind the proxy."""

    url: str
    ca_bundle: Path


@pytest.fixture(scope="module")
def front(studio: RealStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    authority = trustme.CA()
    bundle = write_authority(authority, tmp_path_factory.mktemp("ca"))
    with run_prefix_proxy(studio.url, "/ls", tls=server_context(authority, "localhost")) as url:
        yield Front(url=url, ca_bundle=bundle)


@pytest.fixture(scope="module")
def personal_token(client: StudioClient) -> Iterator[str]:
    client._json("POST", "api/jwt/settings", {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    token = client._json("POST", "api/token/", {})["token"]
    yield token
    client._request("POST", "api/token/blacklist/", body={"refresh": token})


@pytest.fixture(params=["legacy", "personal"])
def token(request: pytest.FixtureRequest, studio: RealStudio, personal_token: str) -> str:
    return studio.token if request.param == "legacy" else personal_token


def test_client_below_a_sub_path_does_its_work(
    front: Front, token: str, make_project: Callable[..., StudioProject]
) -> None:
    project = make_project()
    behind = StudioClient(f"{front.url}/", f"{token}\n", ca_bundle=front.ca_bundle)
    uri = behind.upload_image(project.id, "picture.png", IMAGE)
    (task_id,) = behind.import_tasks(project.id, [{"data": {"image": uri}}])
    assert [task.id for task in behind.iter_tasks(project.id)] == [task_id]
    assert behind.project_state(project.id).presence is Presence.PRESENT
    assert behind.project_state(10**6).presence is Presence.MISSING
    behind.close()

    settings = Settings(label_studio_url=front.url, label_studio_api_key=token, ca_bundle=front.ca_bundle)
    with ImageFetcher(settings) as fetcher:
        assert fetcher.fetch(uri) == IMAGE
        with pytest.raises(ImageError, match="correct the address"):
            fetcher.fetch("/data/upload/../../api/projects/")


def test_client_without_the_sub_path_names_the_address(front: Front, token: str) -> None:
    wrong = StudioClient(front.url.removesuffix("/ls"), token, ca_bundle=front.ca_bundle)
    with pytest.raises(StudioError, match="LABEL_STUDIO_URL") as caught:
        wrong.whoami()
    assert caught.value.cause is StudioCause.ADDRESS
    assert wrong.project_state(1).presence is Presence.UNKNOWN
    wrong.close()


def test_client_revoked_personal_token_names_the_setting(
    front: Front, studio: RealStudio, personal_token: str
) -> None:
    broken = StudioClient(front.url, personal_token[:-4] + "AAAA", ca_bundle=front.ca_bundle)
    with pytest.raises(StudioError, match="set LABEL_STUDIO_API_KEY") as caught:
        broken.whoami()
    assert caught.value.cause is StudioCause.TOKEN
    broken.close()
