"""Every exception that a request or its answer can raise becomes a StudioError with a cause."""

import json
import pickle
import ssl

import httpx
import pydantic
import pytest

from maskloop.errors import ConfigurationError, StudioCause, StudioError
from maskloop_studio.labelstudio.error_map import refused_error, studio_errors

TOKEN = "0123456789abcdef" * 2 + "01234567"
REQUEST = httpx.Request("GET", "http://host/")
SPECIAL = {  # those that need more than a text
    "HTTPStatusError": lambda kind: kind("no", request=REQUEST, response=httpx.Response(503)),
    "ResponseNotRead": lambda kind: kind(),
    "RequestNotRead": lambda kind: kind(),
    "StreamClosed": lambda kind: kind(),
    "StreamConsumed": lambda kind: kind(),
}
EXCEPTIONS = [
    (name, kind)
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and name in httpx.__all__
]


def translate(exc):
    with pytest.raises(StudioError) as caught, studio_errors("place"):
        raise exc
    assert caught.value.__cause__ is exc
    assert str(caught.value).startswith("place: expected ")
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(("name", "kind"), EXCEPTIONS, ids=[name for name, _ in EXCEPTIONS])
def test_studio_errors_every_exception_of_httpx_is_translated(name, kind):
    error = translate(SPECIAL.get(name, lambda kind: kind("text"))(kind))
    assert error.cause is not None


def _pydantic_error():
    class Model(pydantic.BaseModel):
        id: int

    try:
        Model.model_validate({"id": "secret"})
    except pydantic.ValidationError as exc:
        return exc


def _raised(function):
    try:
        function()
    except Exception as exc:
        return exc


@pytest.mark.parametrize(
    ("exc", "cause"),
    [
        pytest.param(httpx.ReadTimeout("slow"), StudioCause.TIMEOUT, id="read timeout"),
        pytest.param(httpx.PoolTimeout("slow"), StudioCause.TIMEOUT, id="pool timeout"),
        pytest.param(httpx.ConnectError("refused"), StudioCause.UNREACHABLE, id="no connection"),
        pytest.param(
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            StudioCause.CERTIFICATE,
            id="certificate",
        ),
        pytest.param(ssl.SSLCertVerificationError("bad"), StudioCause.CERTIFICATE, id="certificate of ssl"),
        pytest.param(ssl.SSLError("handshake"), StudioCause.UNREACHABLE, id="handshake"),
        pytest.param(OSError(101, "unreachable"), StudioCause.UNREACHABLE, id="network"),
        pytest.param(httpx.ProxyError("407"), StudioCause.UNREACHABLE, id="proxy"),
        pytest.param(httpx.InvalidURL("bad"), StudioCause.ADDRESS, id="address"),
        pytest.param(httpx.UnsupportedProtocol("ftp"), StudioCause.ADDRESS, id="protocol"),
        pytest.param(_raised(lambda: json.loads("<")), StudioCause.ANSWER, id="no JSON"),
        pytest.param(_raised(lambda: b"\xff".decode()), StudioCause.ANSWER, id="no UTF-8"),
        pytest.param(_raised(lambda: {}["id"]), StudioCause.ANSWER, id="field missing"),
        pytest.param(_raised(lambda: int(None)), StudioCause.ANSWER, id="null for a number"),
        pytest.param(_raised(lambda: [][0]), StudioCause.ANSWER, id="empty list"),
        pytest.param(_raised(lambda: int(float("inf"))), StudioCause.ANSWER, id="infinite"),
        pytest.param(RecursionError("deep"), StudioCause.ANSWER, id="nested too deep"),
        pytest.param(_pydantic_error(), StudioCause.ANSWER, id="pydantic"),
    ],
)
def test_studio_errors_names_the_cause(exc, cause):
    error = translate(exc)
    assert error.cause is cause
    assert "secret" not in str(error)


@pytest.mark.parametrize("error", [ConfigurationError, StudioError])
def test_studio_errors_own_errors_pass_unchanged(error):
    own = error("x", expected="a", got="b", remedy="c")
    with pytest.raises(error) as caught, studio_errors("place"):
        raise own
    assert caught.value is own


@pytest.mark.parametrize(
    ("status", "body", "cause", "words"),
    [
        (401, '{"detail": "no"}', StudioCause.TOKEN, "LABEL_STUDIO_API_KEY"),
        (403, '{"detail": "no"}', StudioCause.FORBIDDEN, "may see and change"),
        (404, '{"detail": "Not found."}', StudioCause.MISSING, "check the number"),
        (404, "<html>nginx</html>", StudioCause.ADDRESS, "own address"),
        (429, "", StudioCause.RATE_LIMIT, "wait"),
        (502, "<html></html>", StudioCause.SERVER, "own log"),
        (400, '{"validation_errors": {"url": ["bad"]}}', StudioCause.REFUSED, "url: bad"),
    ],
)
def test_refused_error_status_names_cause_and_remedy(status, body, cause, words):
    error = refused_error("place", status, body)
    assert (error.status, error.cause) == (status, cause)
    assert words in str(error)


def test_refused_error_hides_tokens_and_survives_pickling():
    error = pickle.loads(pickle.dumps(refused_error("place", 400, f"Token {TOKEN}")))
    assert TOKEN not in str(error)
    assert (error.status, error.cause) == (400, StudioCause.REFUSED)
