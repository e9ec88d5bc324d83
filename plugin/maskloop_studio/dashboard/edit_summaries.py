"""What annotators did to predictions, for the pages: ledgers of edits that are brought up to date."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop_studio.dashboard.kept_reports import KeptReports
from maskloop_studio.projects.edit_ledger import EditLedger, EditSummary

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["edit_summaries"]

MOST_LEDGERS = 256  # of projects, no fewer than have metrics; 100,000 annotations take about 20 MB
WHOLE_S = 3600.0  # then a ledger is made anew: masks that are derived again have no new version


def edit_summaries(
    services: Services, *, clock_s: Callable[[], float] = time.monotonic
) -> KeptReports[EditSummary]:
    """Return the reports; one for each process."""
    ledgers: OrderedDict[int, tuple[EditLedger, float]] = OrderedDict()

    def make(project_id: int) -> EditSummary:  # called by one thread only
        known, made_s = ledgers.pop(project_id, (None, 0.0))
        if known is None or clock_s() - made_s > WHOLE_S:
            known, made_s = EditLedger(project_id), clock_s()
        known.update(services.store.edit_rows)
        ledgers[project_id] = known, made_s
        while len(ledgers) > MOST_LEDGERS:
            ledgers.popitem(last=False)
        return known.summary(services.settings)

    return KeptReports(
        "edits", make, lambda number: services.store.overview.corrections_stamp(number), clock_s=clock_s
    )
