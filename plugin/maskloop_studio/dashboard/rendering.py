"""Templates -> pages: Jinja2 with autoescape; how numbers and times are written."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from maskloop.store.sessions import now
from maskloop_studio.dashboard.page_guard import PageGuard

__all__ = ["STATIC_DIR", "PageRenderer"]

STATIC_DIR = Path(__file__).with_name("static")
NOTICES = {
    "promoted": "The version is the champion now; servers load it within seconds.",
    "rolled-back": "The champion before it serves again; servers load it within seconds.",
    "retried": "The job is due now.",
    "cancelled": "The job was cancelled; one that runs ends at its next step.",
    "training": "A training is queued.",
    "decided": "Your decision is kept; the next review learns from it.",
    "nothing": "Nothing was changed: it has ended meanwhile.",
}


class PageRenderer:
    """Makes pages of templates; one per process, safe from any thread."""

    def __init__(self, guard: PageGuard) -> None:
        self._guard = guard
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "ago": _ago,
            "day": lambda value: "" if value is None else f"{value:%Y-%m-%d}",
            "moment": lambda value: "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            "score": lambda value: "–" if value is None else f"{value:.3f}",
            "signed": lambda value: "–" if value is None else f"{value:+.3f}",
            "percent": lambda value: "–" if value is None else f"{value:.0%}",
            "percent1": lambda value: "–" if value is None else f"{value:.1%}",
            "seconds": _duration,
            "megabytes": lambda value: "–" if value is None else f"{value:,.0f} MB",
            "pretty": lambda value: json.dumps(value, indent=1, ensure_ascii=False, default=str),
            "chart": lambda value: json.dumps(value, separators=(",", ":"), default=_plain),
        }

    def page(
        self, request: Request, template: str, values: dict[str, Any], *, status: int = 200
    ) -> HTMLResponse:
        """Return a page.

        Args:
            request: what asks for it.
            template: a file below `templates`.
            values: what it shows; texts in it cannot become markup.
            status: HTTP's.
        """
        cookie = self._guard.cookie_of(request)
        context = {
            "base": f"{request.scope.get('root_path', '')}/dashboard",
            "root": request.scope.get("root_path", ""),
            "here": request.url.path,
            "assets": _assets_digest(),
            "can_act": self._guard.can_act,
            "user": self._guard.user,
            "token": self._guard.token(cookie),
            "notice": NOTICES.get(request.query_params.get("notice", "")),
            "now": now(),
        }
        text = self._environment.get_template(template).render(context | values)
        response = HTMLResponse(text, status_code=status)
        self._guard.set_cookie(request, response, cookie)
        return response


@cache
def _assets_digest() -> str:
    """Return what changes with any static file, so that browsers keep no old one."""
    whole = hashlib.sha256()
    for path in sorted(STATIC_DIR.rglob("*.*")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def _ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = (now() - at).total_seconds()
    if seconds < 0:
        return f"in {_duration(-seconds)}"
    return f"{_duration(seconds)} ago"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit_s, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def _plain(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"chart: expected plain values, got {type(value).__name__}")
