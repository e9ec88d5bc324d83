"""A pytest plugin: how well masks came back from Label Studio in each form, as one table at the end."""

import math
from collections.abc import Callable

import pytest

__all__ = ["HEADER", "PROPERTY"]

PROPERTY = "region form"  # of a test's report; it reaches the main process of pytest-xdist
HEADER = ("family", "task", "form", "segments", "mean IoU", "min IoU", "with the mask")
LINE = "{:<12} {:<9} {:<17} {:>8} {:>9} {:>8} {:>14}"


@pytest.fixture
def record_form(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Add a row to the table: three names, a count and three IoUs (0 to 1, NaN for none), as in HEADER."""

    def record(*row: object) -> None:
        names, count, ious = row[:3], row[3], row[4:]
        record_property(PROPERTY, [*map(str, names), int(count), *map(float, ious)])

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table where a test recorded a row."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    rows = [row for report in reports for name, row in report.user_properties if name == PROPERTY]
    if not rows:
        return
    terminalreporter.section("through Label Studio and back: IoU with what the form can express")
    terminalreporter.write_line(LINE.format(*HEADER))
    for *names, count, mean, least, with_mask in rows:
        figures = ("-" if math.isnan(figure) else f"{figure:.4f}" for figure in (mean, least, with_mask))
        terminalreporter.write_line(LINE.format(*names, count, *figures))
