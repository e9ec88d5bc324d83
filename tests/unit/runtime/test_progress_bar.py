"""Without a terminal the progress is plain lines, not too many of them."""

import io

import pytest
from rich.console import Console

from maskloop_studio.runtime.progress_bar import PlainProgress


def test_plain_progress_prints_a_line_each_ten_seconds():
    written, now = io.StringIO(), [100.0]
    with PlainProgress(Console(file=written), clock=lambda: now[0]) as bar:
        training = bar.add_task("training 5", total=None)
        for step in range(31):
            bar.update(training, completed=step, total=300)
            now[0] += 1.0
    lines = written.getvalue().splitlines()
    assert lines == ["training 5: 10 of 300", "training 5: 20 of 300", "training 5: 30 of 300"]


def test_plain_progress_short_task_prints_nothing():
    written = io.StringIO()
    with PlainProgress(Console(file=written), clock=lambda: 1.0) as bar:
        bar.update(bar.add_task("reading", total=9), completed=9)
    assert written.getvalue() == ""


def test_plain_progress_has_no_control_characters_and_one_line_a_message():
    written, now = io.StringIO(), [0.0]
    with PlainProgress(Console(file=written, width=20), clock=lambda: now[0]) as bar:
        task = bar.add_task("[red]" + "a long description " * 5, total=None)
        for _ in range(2):
            bar.update(task, completed=3)
            now[0] += 10.0
    assert written.getvalue() == "[red]" + "a long description " * 5 + ": 3\n"


@pytest.mark.parametrize(
    ("completed", "total", "line"),
    [
        pytest.param(0.18, 1, "installing: 18%", id="share"),
        pytest.param(3, 7, "installing: 3 of 7", id="count"),
        pytest.param(3, None, "installing: 3", id="unknown end"),
    ],
)
def test_plain_progress_amount(completed, total, line):
    written, now = io.StringIO(), [0.0]
    with PlainProgress(Console(file=written), clock=lambda: now[0]) as bar:
        task = bar.add_task("installing", total=None)
        for _ in range(2):
            bar.update(task, completed=completed, total=total)
            now[0] += 10.0
    assert written.getvalue() == f"{line}\n"
