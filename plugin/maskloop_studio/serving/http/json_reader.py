"""Reads large request bodies in a process of their own: meanwhile this one answers everybody else.

Building a JSON tree is one call of a C library that holds Python's global lock, for up to a second where the
tree is as large as it may be. The process is killed at its deadline; the next use starts a new one.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, TypeVar, cast

from pydantic import BaseModel

from maskloop.errors import MaskloopError
from maskloop.processes import own_environment
from maskloop_studio.errors import OverloadedError, TooLargeError
from maskloop_studio.labelstudio import protocol as wire
from maskloop_studio.serving.http.json_body import is_small, parse_json, tree_bytes

__all__ = ["MAX_TASK_TREE_BYTES", "JsonReader"]

DEADLINE_S = 10.0
PATIENCE_S = 10.0  # for the bodies before it
MAX_TASK_TREE_BYTES = 16 * 2**20  # one task is built in one call: about 0.1 s
ADDRESS_SPACE_BYTES = 2 * 2**30  # of the process
MODELS: dict[str, type[BaseModel]] = {"predict": wire.PredictRequest, "webhook": wire.WebhookEvent}
HEAD = struct.Struct(">Q")

Request = TypeVar("Request", bound=BaseModel)


class JsonReader:
    """Reads one kind of body; may be shared by threads, which wait for each other."""

    def __init__(self, place: str, *, deadline_s: float = DEADLINE_S, patience_s: float = PATIENCE_S) -> None:
        """Args:
        place: "predict" or "webhook": which request it reads.
        deadline_s: for one body.
        patience_s: how long a body waits for those before it.
        """
        self._place, self._deadline_s, self._patience_s = place, deadline_s, patience_s
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process; None before the first large body and after the last one failed."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process now, so that the first large body does not wait for it."""
        with self._turn:
            if self._process is None:
                self._process = _start()

    def close(self) -> None:
        """End the process; a body in hand is refused."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def read(
        self, model: type[Request], body: bytes, *, skip_numbers: bool = False, max_tree_bytes: int
    ) -> Request:
        """Return what a body holds, as `parse_json` does; only small ones are parsed in this process.

        Raises:
            TooLargeError: it takes more memory or time than it may.
            UnreadableError: it is not JSON, or of another form.
            OverloadedError: too many large bodies are before it.
        """
        if is_small(body, skip_numbers=skip_numbers):
            return parse_json(
                model, body, place=self._place, skip_numbers=skip_numbers, max_tree_bytes=max_tree_bytes
            )
        if not self._turn.acquire(timeout=self._patience_s):
            raise OverloadedError(
                self._place,
                expected=f"that large bodies before it are read within {self._patience_s:g} s",
                got="more of them",
                remedy="send it again in a moment",
            )
        try:
            answer = self._ask({"skip_numbers": skip_numbers, "max_tree_bytes": max_tree_bytes}, body)
        finally:
            self._turn.release()
        head, tasks = pickle.loads(answer)  # noqa: S301 - made by our own process
        if isinstance(head, MaskloopError):
            raise head
        if isinstance(head, wire.PredictRequest):
            # One by one: other threads run in between.
            head.tasks = [pickle.loads(task) for task in tasks]  # noqa: S301
        return cast(Request, head)

    def _ask(self, how: dict[str, Any], body: bytes) -> bytes:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # killed by somebody since
        process = self._process = self._process or _start()
        is_late = threading.Event()

        def end_late() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(self._deadline_s, end_late)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _write(process.stdin, pickle.dumps({"place": self._place, **how}))
            _write(process.stdin, body)
            return _read(process.stdout)
        except (OSError, EOFError, ValueError) as exc:
            self.close()
            raise self._too_large() if is_late.is_set() else self._gone() from exc
        finally:
            timer.cancel()

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            self._place,
            expected=f"a body that is read within {self._deadline_s:g} s",
            got="one that is not",
            remedy="send less at once",
        )

    def _gone(self) -> OverloadedError:
        return OverloadedError(
            self._place,
            expected="the process that reads large bodies",
            got="none: it was ended, or takes more than 2 GiB",
            remedy="send it again in a moment, or less at once",
        )


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - a fixed program; ends when its standard input does
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=own_environment(),
    )


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _write(pipe: IO[bytes], content: bytes) -> None:
    left = memoryview(HEAD.pack(len(content)))
    for piece in (left, memoryview(content)):
        while piece:
            piece = piece[os.write(pipe.fileno(), piece) :]


def _read(pipe: IO[bytes]) -> bytes:
    (size,) = HEAD.unpack(b"".join(_pieces(pipe, HEAD.size)))
    return b"".join(_pieces(pipe, size))


def _pieces(pipe: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        piece = os.read(pipe.fileno(), min(size, 1 << 20))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


def _answer(body: bytes, *, place: str, **how: Any) -> tuple[object, list[bytes]]:
    """Return the request, its tasks apart and pickled one by one; or the error."""
    try:
        found = parse_json(MODELS[place], body, place=place, **how)
    except MaskloopError as exc:
        return exc, []
    if not isinstance(found, wire.PredictRequest):
        return found, []
    for number, task in enumerate(found.tasks):
        if tree_bytes(task.model_dump_json().encode()) > MAX_TASK_TREE_BYTES:
            error = TooLargeError(
                f"{place}, tasks, {number}",
                expected=f"task data that takes at most {MAX_TASK_TREE_BYTES >> 20} MB when it is read",
                got="more lists, objects and values than that",
                remedy="keep such data outside the task, and its address in it",
            )
            return error, []
    tasks = [pickle.dumps(task) for task in found.tasks]
    found.tasks = []
    return found, tasks


def main() -> None:
    """Answer bodies from standard input on standard output until it ends."""
    import gc
    import resource
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):  # the server answers what it has, then ends us
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # nothing else may write between the answers
    gc.disable()  # trees have no rings
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            how = pickle.loads(_read(sys.stdin.buffer))  # noqa: S301 - sent by our own server
            _write(answers, pickle.dumps(_answer(_read(sys.stdin.buffer), **how)))


if __name__ == "__main__":
    main()
