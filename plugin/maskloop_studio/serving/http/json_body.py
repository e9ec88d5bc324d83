"""Bytes -> a typed request, at a bounded cost.

A JSON tree can take eighty times the memory of its text and seconds to build, during which nothing else is
answered. So long lists of numbers, which are brush masks that are not read here, are cut out of events
beforehand, and what the rest would take is estimated before it is parsed.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from maskloop_studio.errors import TooLargeError, UnreadableError

__all__ = [
    "MAX_EVENT_TREE_BYTES",
    "MAX_FORM_TREE_BYTES",
    "MAX_TREE_BYTES",
    "check_form_size",
    "has_prompt",
    "is_small",
    "parse_json",
    "request_schema",
    "shorten_tasks",
    "tree_bytes",
]

MAX_TREE_BYTES = 256 * 2**20
MAX_EVENT_TREE_BYTES = 64 * 2**20  # of a million regions' points, or a quarter of a million subjects
MAX_FORM_TREE_BYTES = 4 * 2**20  # of other routes' bodies: a label config is one text
MAX_FORM_BYTES = 8 * 2**20  # 1 MiB of label config whose characters are all written as \uXXXX takes 6
SMALL_BYTES, SMALL_TREE_BYTES = 2**17, 2**20  # parsed in some milliseconds
BYTES_PER_CONTAINER = 256  # measured: 94 to 246 for an empty list or a small object
BYTES_PER_VALUE = 56  # measured: 54 for a small number
LONG_START = re.compile(rb"\[[0-9,\s.\-]{256}")
NUMBERS = re.compile(rb"[0-9,\s.\-]*+")
LONG_CHARS = 257  # of `LONG_START`
WINDOW_BYTES = 2**19  # searched at once: other threads run in between
PROMPT = re.compile(rb'"context"\s*+:\s*+\{\s*+"')  # a context that is not empty
PROMPT_BYTES = 128  # that the pattern spans, unless somebody wrote spaces to hide it
PARAMS = b'"params"'
SOME_NUMBER = b"[0]"  # what is left is no list of objects either, so it is refused where one is expected

Request = TypeVar("Request", bound=BaseModel)


def parse_json(
    model: type[Request],
    body: bytes,
    *,
    place: str,
    skip_numbers: bool = False,
    max_tree_bytes: int = MAX_TREE_BYTES,
) -> Request:
    """Return the request that a body holds.

    Args:
        model: the form it must have.
        body: JSON in UTF-8.
        place: what it is, for the error's text.
        skip_numbers: leave long lists of numbers unread.
        max_tree_bytes: how much memory parsing may take, about.

    Raises:
        TooLargeError: parsing would take more memory than that.
        UnreadableError: it is not JSON, or of another form; the text repeats nothing of it.
    """
    if skip_numbers:
        body = _without_long_numbers(body)
    if tree_bytes(body) > max_tree_bytes:
        raise TooLargeError(
            place,
            expected=f"JSON that takes at most {max_tree_bytes >> 20} MB when it is read",
            got="more lists, objects and values than that",
            remedy="send fewer at once",
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in _known_path(first["loc"]))
    raise UnreadableError(
        f"{place}, {where}" if where else place,
        expected="a body as /docs describes it, JSON in UTF-8",
        got=str(first["msg"]),
        remedy="see /docs for its form",
    )


def has_prompt(body: bytes) -> bool:
    """Return whether a prediction request seems to be interactive, without parsing it."""
    starts = range(0, max(1, len(body)), WINDOW_BYTES)
    return any(PROMPT.search(body, at, at + WINDOW_BYTES + PROMPT_BYTES) is not None for at in starts)


def check_form_size(body: bytes, *, place: str) -> None:
    """Refuse a body that is no prediction request, no event, and larger than any label config.

    Raises:
        TooLargeError: it is.
    """
    if len(body) > MAX_FORM_BYTES:
        raise TooLargeError(
            place,
            expected=f"at most {MAX_FORM_BYTES >> 20} MiB",
            got="more",
            remedy="send a label config of at most 1 MiB",
        )


def shorten_tasks(body: bytes) -> bytes:
    """Return an interactive request without the long lists of numbers of the tasks' own regions.

    Label Studio sends all regions of the task along. They are not read: a click must not wait for megabytes
    of brush masks. What `params` holds stays as it is.
    """
    start = body.rfind(PARAMS)
    return body if start < 0 else _without_long_numbers(body[:start]) + body[start:]


def _without_long_numbers(body: bytes) -> bytes:
    """Return JSON with `[0]` in place of each list of at least 256 characters of numbers."""
    pieces: list[bytes] = []
    kept = at = 0  # up to where it is in `pieces`, and searched
    while at < len(body):
        end = at + WINDOW_BYTES
        start = LONG_START.search(body, at, end + LONG_CHARS)
        if start is None:
            at = end
            continue
        at = _end_of_numbers(body, start.end())
        if body[at : at + 1] == b"]":
            at += 1
            pieces += (body[kept : start.start()], SOME_NUMBER)
            kept = at
    return b"".join((*pieces, body[kept:])) if pieces else body


def _end_of_numbers(body: bytes, at: int) -> int:
    while True:
        found = NUMBERS.match(body, at, at + WINDOW_BYTES)
        assert found is not None
        if found.end() < at + WINDOW_BYTES:
            return found.end()
        at = found.end()


def is_small(body: bytes, *, skip_numbers: bool = False) -> bool:
    """Return whether a body is parsed in so short a time that nobody notices; `skip_numbers` as above."""
    if len(body) > SMALL_BYTES:
        return False
    return tree_bytes(_without_long_numbers(body) if skip_numbers else body) <= SMALL_TREE_BYTES


def tree_bytes(body: bytes) -> int:
    """Return the memory that a body takes when it is parsed, at most, about."""
    size = 0
    for at in range(0, len(body), WINDOW_BYTES):
        end = at + WINDOW_BYTES
        containers = body.count(b"[", at, end) + body.count(b"{", at, end)
        size += containers * BYTES_PER_CONTAINER + body.count(b",", at, end) * BYTES_PER_VALUE
    return size


def request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return how OpenAPI describes a body that the route reads by itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema, definitions)}},
        }
    }


def _known_path(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    # Keys that the sender chose, as in `data`, are no part of our form: they are not repeated.
    return tuple(part for part in location[:4] if isinstance(part, int) or part.isidentifier())


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}
