"""Which paths of Label Studio are requested with its token."""

import pytest

from maskloop.errors import ImageError
from maskloop_studio.images.studio_paths import is_image_path, is_upload, relative_path

IMAGE_PATHS = [
    "/data/upload/1/a.png",
    "/data/upload/1/a%20b%25.png",
    "/data/upload/1/%C3%A4.png",
    "/data/upload/1/a..b.png",
    "/data/local-files/",
    "/data/local-files",
    "/storage-data/uploaded/",
    "/tasks/7/resolve/",
    "/tasks/7/presign/",
    "/projects/7/resolve/",
    "/projects/7/presign",
]
OTHER_PATHS = [
    "/",
    "/api/projects/",
    "/api/current-user/token",
    "/data/a.png",
    "/data/upload/",
    "/data/uploads/1/a.png",
    "/data//upload/1/a.png",
    "/data/avatars/a.png",
    "/xdata/upload/1/a.png",
    "/tasks/7/",
    "/tasks/x/resolve/",
    "/tasks/7/resolve/more",
    "/tasks/٧/resolve/",
    "/user/logout",
    "/%64ata/upload/1/a.png",
    "/data%2fupload/1/a.png",
]
TRICKS = [
    "/data/../api/projects/",
    "/data/upload/../../api/projects/",
    "/data/upload/1/..",
    "/data/upload/./1/a.png",
    "/data/%2e%2e/api/projects/",
    "/data/upload/%2E%2e/%2e./api/projects/",
    "/data/upload/1/%252e%252e/%252e%252e/api/",
    "/data/upload/..%2f..%2fapi/projects/",
    "/data/upload/..%252f..%252fapi/projects/",
    "/data/upload/..\\..\\api",
    "/data/upload/..%5c..%5capi",
    "/data/upload/..;/..;/api/projects/",
    "/data/upload/%2e%2e%3b/api/projects/",
    "/data/upload/1/%00a.png",
    "/data/upload/1/%0d%0aX: y",
    "/data/upload/1/%" + "25" * 9 + "2e",
    "/data/upload/%2525252525252e%2525252525252e/api",
]


@pytest.mark.parametrize("path", IMAGE_PATHS)
def test_is_image_path_of_task_images_is_true(path):
    assert is_image_path(path)


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_is_image_path_of_anything_else_is_false(path):
    assert not is_image_path(path)


@pytest.mark.parametrize("path", TRICKS)
def test_is_image_path_that_servers_read_differently_is_refused(path):
    with pytest.raises(ImageError, match="correct the address"):
        is_image_path(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/data/upload/1/a.png", True), ("/data/local-files/", False), ("/tasks/7/resolve/", False)],
)
def test_is_upload_only_of_uploaded_files(path, expected):
    assert is_upload(path) is expected


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("http://host/data/a", "http://host", "/data/a"),
        ("HTTP://HOST:80/data/a?x=1#y", "http://host", "/data/a"),
        ("http://host/ls/data/a", "http://host/ls", "/data/a"),
        ("http://host/ls/../api", "http://host/ls", "/../api"),
        ("http://host/data/a", "http://host/ls", None),
        ("http://host/lsx/data/a", "http://host/ls", None),
        ("http://host/other/../ls/data/a", "http://host/ls", None),
        ("http://host:81/data/a", "http://host", None),
        ("https://host/data/a", "http://host", None),
        ("http://host.evil/data/a", "http://host", None),
        ("http://host@evil/data/a", "http://host", None),
        ("http://evil/http://host/data/a", "http://host", None),
        ("http://host", "http://host", None),
    ],
)
def test_relative_path_is_below_the_address_only(url, base, path):
    assert relative_path(url, base) == path
