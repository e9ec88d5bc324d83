"""`MASKLOOP_PROMOTION=trial`: a promoted version draws half of the tasks until annotators' edits decide.

Stored predictions of both halves have the new version's tag in Label Studio, so that annotators see no
difference; the database knows which version made each one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.drift.signals import correction_share
from maskloop.errors import MaskloopError
from maskloop.learning.evaluation.trial import TrialRule, Verdict, is_old_versions, judge_trial
from maskloop.log import log_action
from maskloop.store.audit import Actor, ActorKind
from maskloop_studio.projects.champion import roll_back
from maskloop_studio.projects.training import champion_tag

if TYPE_CHECKING:
    from maskloop.learning.evaluation.trial import TrialState
    from maskloop.store.trials import Trial
    from maskloop_studio.services import Services

__all__ = ["check_trial"]

logger = logging.getLogger(__name__)
RULE = TrialRule()
WORDS = {
    Verdict.BETTER: "annotators keep more of its regions",
    Verdict.WORSE: "annotators keep fewer of its regions",
    Verdict.ALIKE: "no difference was found",
}


def check_trial(project_id: int, services: Services) -> TrialState | None:
    """Look how a project's trial stands, and end it where it is decided: a worse version is rolled back.

    Returns:
        How it stands; None where none runs, or trouble, which is logged and stops nothing.
    """
    try:
        trial = services.store.trials.running(project_id)
        return None if trial is None else _check(trial, services)
    except MaskloopError as exc:
        log_action(logger, "trial_not_checked", level=logging.WARNING, project_id=project_id, error=exc)
        return None


def _check(trial: Trial, services: Services) -> TrialState:
    state = judge_trial(_kept(trial, trial.old, services), _kept(trial, trial.new, services), RULE)
    shares = state.old_share, state.new_share
    if champion_tag(trial.project_id, services.registry) != trial.new:
        # a person, or another training, has decided
        services.store.trials.note(trial, verdict="overtaken", ended=True, pairs=state.pairs, shares=shares)
        return state
    if state.verdict is Verdict.WORSE:
        # Before the trial ends: killed in between, the next look finds another champion.
        roll_back(
            trial.project_id,
            services,
            reason=_reason(state),
            actor=Actor(kind=ActorKind.MASKLOOP, name="trial"),
        )
    ended = state.verdict is not Verdict.OPEN
    services.store.trials.note(
        trial, verdict=state.verdict.value, ended=ended, pairs=state.pairs, shares=shares
    )
    if ended:
        _tell(trial, state, services)
    return state


def _kept(trial: Trial, tag: str, services: Services) -> list[float]:
    """Return the share of regions kept untouched of each image of a version's half, as they were saved."""
    rows = services.store.edit_rows.read(
        trial.project_id, after_version=trial.after_version, model_version=tag
    )
    is_old = tag == trial.old
    kept = []
    for row in sorted(rows, key=lambda one: one.version_id):
        has_regions = row.edits.predicted + row.edits.added > 0
        # A task that was opened before its prediction was stored was answered live, whatever its half.
        if has_regions and is_old_versions(row.task_id, trial.new) is is_old:
            kept.append(1.0 - correction_share(row.edits))
    return kept


def _reason(state: TrialState) -> str:
    old, new = (0.0 if share is None else share for share in (state.old_share, state.new_share))
    return (
        f"trial: {WORDS[state.verdict]}: {new:.0%} against {old:.0%} kept untouched, "
        f"on {state.pairs} images each"
    )


def _tell(trial: Trial, state: TrialState, services: Services) -> None:
    reason = _reason(state)
    log_action(
        logger,
        "trial_ended",
        project_id=trial.project_id,
        model_version=trial.new,
        verdict=state.verdict.value,
        reason=reason,
    )
    if services.settings.notify_url is None:
        return
    stays = trial.old if state.verdict is Verdict.WORSE else trial.new
    services.store.notices.put(
        "trial",
        f"project {trial.project_id}: the trial of {trial.new} ended, {stays} serves; {reason}",
        key=f"trial-{trial.project_id}-{trial.new}",
        project_id=trial.project_id,
        facts={
            "version": trial.new,
            "against": trial.old,
            "verdict": state.verdict.value,
            "images": state.pairs,
            "kept": state.new_share,
            "kept_before": state.old_share,
        },
    )
