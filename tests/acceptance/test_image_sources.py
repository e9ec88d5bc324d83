"""Images from where Label Studio keeps them: uploads, local files, a cloud storage it resolves."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from maskloop.errors import ImageError
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.images.fetcher import ImageFetcher
from maskloop_studio.labelstudio.client import StudioClient, StudioProject

pytestmark = pytest.mark.studio

URI = "s3://pictures/folder/a b.png"
IMAGE = b"\x89PNG any bytes"


class Bucket:
    """As much of S3 as Label Studio asks for; remembers who asked with which token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(b"")

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                outer.asked.append((path, self.headers.get("Authorization", "")))
                self.answer(IMAGE if path.endswith(".png") else b"<ListBucketResult></ListBucketResult>")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.server.shutdown()
    made.server.server_close()


def make_fetcher(studio: RealStudio, *, cache: ImageCache | None = None, **fields: Any) -> ImageFetcher:
    settings = Settings(label_studio_url=studio.url, label_studio_api_key=studio.token, **fields)
    return ImageFetcher(settings, cache=cache)


def add_storage(client: StudioClient, kind: str, project: StudioProject, **fields: Any) -> None:
    client._json("POST", f"api/storages/{kind}", {"project": project.id, "title": kind, **fields})


def test_fetch_upload_is_asked_for_once(
    studio: RealStudio, client: StudioClient, make_project: Callable[..., StudioProject], tmp_path: Path
) -> None:
    uri = client.upload_image(make_project().id, "picture.png", IMAGE)
    cache = ImageCache(tmp_path)
    with make_fetcher(studio, cache=cache) as fetcher:
        assert fetcher.fetch(uri) == fetcher.fetch(studio.url + uri) == IMAGE
    assert cache.recall(studio.url + uri) == IMAGE


def test_fetch_local_file(
    studio: RealStudio, client: StudioClient, make_project: Callable[..., StudioProject]
) -> None:
    folder = studio.files_dir / "pictures"
    folder.mkdir(exist_ok=True)
    (folder / "a b.png").write_bytes(IMAGE)
    add_storage(client, "localfiles", make_project(), path=str(folder), use_blob_urls=True)
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch("/data/local-files/?d=pictures/a%20b.png") == IMAGE
        with pytest.raises(ImageError, match="status 404"):
            fetcher.fetch("/data/local-files/?d=pictures/other.png")


def test_fetch_many_hundred_uploads_of_a_real_label_studio(
    studio: RealStudio, client: StudioClient, make_project: Callable[..., StudioProject]
) -> None:
    uri = client.upload_image(make_project().id, "picture.png", IMAGE)
    with make_fetcher(studio) as fetcher:
        assert fetcher.fetch_many([uri] * 100) == [IMAGE] * 100


@pytest.mark.parametrize("presign", [True, False], ids=["redirected to the bucket", "passed on"])
def test_fetch_cloud_storage_through_label_studio(
    studio: RealStudio,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    bucket: Bucket,
    presign: bool,
) -> None:
    project = make_project()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    add_storage(
        client,
        "s3",
        project,
        bucket="pictures",
        s3_endpoint=bucket.url,
        presign=presign,
        use_blob_urls=True,
        **keys,
    )
    task_id = client.import_tasks(project.id, [{"data": {"image": URI}}])[0]
    with make_fetcher(studio, allow_private_images=presign) as fetcher:
        assert fetcher.fetch(URI, task_id=task_id) == IMAGE
    assert bucket.asked[-1][0] == "/pictures/folder/a%20b.png"
    assert studio.token not in bucket.asked[-1][1]
    if presign:
        with (
            make_fetcher(studio) as fetcher,
            pytest.raises(ImageError, match=r"public address, got 127\.0\.0\.1"),
        ):
            fetcher.fetch(URI, task_id=task_id)
