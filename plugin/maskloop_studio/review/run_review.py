"""`maskloop review`: rank a project's annotations, keep what is shown, and bring it into Label Studio."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskloop.errors import ImageError, StudioError, TrainingError
from maskloop.store.reviews import REVIEW_TAG, StoredSuspicion, Verdict
from maskloop.types import UNLABELLED, Correction, Prediction, Segment, SegmentationTask
from maskloop_studio.projects.correction_labels import match_correction_labels
from maskloop_studio.projects.frozen_corrections import TrainingImages, ensure_image, near_groups
from maskloop_studio.projects.training import ensure_champion, model_name, plan_learning
from maskloop_studio.review.review_tab import TaskProposal, show_proposals

if TYPE_CHECKING:
    from maskloop.curation.review.gallery import Card
    from maskloop.curation.review.suspicion import Evidence, ReviewImage, Suspicion, SuspicionKind
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop.types import ModelVersion, RgbImage
    from maskloop_studio.projects.prediction_plan import PredictionPlan, ProjectPlan
    from maskloop_studio.services import Services

__all__ = ["ReviewOutcome", "decide", "review_project"]

Place = tuple[int, str, int]  # task, view, page


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewOutcome:
    """What a review found."""

    project_id: int
    images: int  # that were looked at
    unseen: int  # of the annotated images, which no model could judge: all had learnt from them
    unreadable: tuple[str, ...]  # images that are gone: why
    calibrated: bool  # False: too few regions, scores are by rule
    shown: tuple[StoredSuspicion, ...]  # likeliest first, with their numbers
    confirmed: int  # left out: a reviewer said that they are right
    kinds: tuple[str, ...] = ()  # that were looked for; none: all
    unjudged: tuple[str, ...] = ()  # kinds that were asked for, of which no error could be made to learn from
    settled: Mapping[str, int] = field(default_factory=dict)  # verdict -> how many were decided since
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looked:
    """An annotated image with what a model saw that had not learnt from it."""

    correction: Correction
    image: ReviewImage
    version: str  # tag


def review_project(
    project_id: int,
    services: Services,
    *,
    top: int,
    in_studio: bool,
    say: Callable[[str], None],
    folds: int = 0,
    kinds: Collection[SuspicionKind] = (),
) -> ReviewOutcome:
    """Rank a project's regions and missing regions, store the likeliest errors and show them.

    Args:
        project_id: Label Studio's number.
        services: registry, database, images, Label Studio.
        top: how many suspicions are kept and shown.
        in_studio: also make the tab, and store the proposals as predictions.
        say: gets lines of progress.
        folds: of the images that every trained version has learnt from; models are trained to judge them. 0:
            such images are judged by the first version, or left out where that knows none of the classes.
        kinds: of errors that are looked for; none: all.

    Raises:
        TrainingError: nothing to review: no annotation, or no model that had not learnt from its image.
        StudioError: Label Studio does not answer.
    """
    from maskloop.curation.review.decisions import is_confirmed, lessons_of, settle
    from maskloop.curation.review.rank import rank
    from maskloop.curation.review.suspicion import SuspicionKind

    store = services.store
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    plan, prediction_plan = plan_learning(project_id, champion, services)
    corrections = _corrections(project_id, services, say)
    looked, unseen, unreadable = _look(
        project_id, corrections, plan, services, task=prediction_plan.task, folds=folds, say=say
    )
    if not looked:
        raise TrainingError(
            f"review of project {project_id}",
            expected="an annotated image from which some version of its model has not learnt",
            got=f"{len(corrections)} annotated images, {unseen} known to every version, "
            f"{len(unreadable)} unreadable",
            remedy="annotate more tasks: those of the holdout can always be reviewed",
        )
    newest = {_place(one): _as_classes(one, plan) for one in corrections}
    settled = settle(store.reviews.of(project_id, Verdict.OPEN), newest)
    for verdict in (Verdict.RIGHT, Verdict.WRONG):
        numbers = [number for number, one in settled.items() if one is verdict]
        store.reviews.decide(project_id, numbers, verdict)
    decided = store.reviews.of(project_id, Verdict.RIGHT, Verdict.WRONG)
    right = [one for one in decided if one.verdict is Verdict.RIGHT]
    say(f"ranking {sum(len(one.image.regions) for one in looked)} regions")
    ranking = rank(
        [one.image for one in looked],
        labels=plan.classes,
        lessons=lessons_of(decided),
        seed=services.settings.seed,
        kinds=kinds or tuple(SuspicionKind),
    )
    by_key = {one.image.key: one for one in looked}
    chosen: list[tuple[Suspicion, StoredSuspicion]] = []
    confirmed = 0
    for suspicion, features in zip(ranking.suspicions, ranking.features, strict=True):
        if len(chosen) >= top:
            break
        stored = _to_stored(suspicion, features, by_key[suspicion.image])
        if is_confirmed(stored.segment, stored.missing, stored.image_key, right):
            confirmed += 1
        else:
            chosen.append((suspicion, stored))
    given = store.reviews.replace_open(project_id, [stored for _, stored in chosen])
    shown = tuple(
        dataclasses.replace(stored, number=number) for (_, stored), number in zip(chosen, given, strict=True)
    )
    if in_studio:
        show_proposals(
            project_id,
            _proposals(project_id, chosen, by_key, champion, services),
            client=services.client,
            pushes=store.pushes,
        )
    return ReviewOutcome(
        project_id=project_id,
        images=len(looked),
        unseen=unseen,
        unreadable=unreadable,
        calibrated=ranking.calibrated,
        shown=shown,
        confirmed=confirmed,
        kinds=tuple(map(str, kinds)),
        unjudged=tuple(map(str, ranking.unjudged)) if kinds else (),
        settled={str(verdict): list(settled.values()).count(verdict) for verdict in set(settled.values())},
        cards=_cards(chosen, given, by_key, services),
    )


def decide(project_id: int, numbers: Sequence[int], verdict: Verdict, services: Services) -> tuple[int, ...]:
    """Store what a reviewer decided and return the numbers that there are."""
    return services.store.reviews.decide(project_id, numbers, verdict)


def _corrections(project_id: int, services: Services, say: Callable[[str], None]) -> tuple[Correction, ...]:
    from maskloop.learning.data.splits import choose_corrections

    (matched,) = match_correction_labels(
        services.store.corrections.of(project_id),
        label_config=services.client.project(project_id).label_config,
        settings=services.settings,
    )
    chosen = choose_corrections(matched, services.settings.annotation_rule)
    reviewed = tuple(one for one in chosen if not one.is_boxes_only)
    if boxes := sum(one.boxes for one in chosen):
        say(
            f"{boxes} regions are boxes, which are not reviewed; {len(chosen) - len(reviewed)} images have "
            "nothing else and are left out, and tasks with boxes get no proposal in Label Studio"
        )
    return reviewed


def _look(
    project_id: int,
    corrections: Sequence[Correction],
    plan: LabelPlan,
    services: Services,
    *,
    task: SegmentationTask,
    folds: int,
    say: Callable[[str], None],
) -> tuple[list[_Looked], int, tuple[str, ...]]:
    """Return the images with evidence, how many no version can judge, and why others cannot be read."""
    from maskloop.curation.review.look import look_at
    from maskloop.learning.unseen import learnt_images, newest_unseen
    from maskloop.segmentation.checkpoint import load_checkpoint

    versions = services.registry.versions(model_name(project_id))
    learnt = learnt_images(versions)
    trained = [one for one in versions if learnt[one.number].tasks] if folds else versions
    unreadable: list[str] = []
    here: list[Correction] = []
    for one in corrections:
        try:
            ensure_image(one, image_cache=services.image_cache, fetcher=services.fetcher)
            here.append(one)
        except (ImageError, StudioError) as exc:
            unreadable.append(str(exc))
    of_version: defaultdict[int, list[Correction]] = defaultdict(list)
    unseen = []
    for one in here:
        version = newest_unseen(
            one.task_id, one.image_key, versions=trained, learnt=learnt, classes=plan.classes
        )
        if version is None:
            unseen.append(one)
        else:
            of_version[version.number].append(one)
    looked: list[_Looked] = []
    for version in (one for one in versions if one.number in of_version):
        some = of_version[version.number]
        say(f"{version.tag} looks at {len(some)} images that it has not learnt from")
        checkpoint = load_checkpoint(version.path, device=services.settings.device)
        for one in some:
            try:
                pixels = _read(one.image_key, services)
            except ImageError as exc:
                unreadable.append(str(exc))
                continue
            evidence = look_at(checkpoint, pixels, task=task)
            looked.append(_Looked(correction=one, image=_image(one, evidence, plan), version=version.tag))
    if folds and unseen:
        bases = [one for one in versions if not learnt[one.number].tasks]
        looked += _look_in_folds(
            project_id, here, unseen, bases, plan, services=services, task=task, folds=folds, say=say
        )
        unseen = []
    return looked, len(unseen), tuple(unreadable)


def _look_in_folds(
    project_id: int,
    corrections: Sequence[Correction],
    wanted: Sequence[Correction],
    bases: Sequence[ModelVersion],
    plan: LabelPlan,
    *,
    services: Services,
    task: SegmentationTask,
    folds: int,
    say: Callable[[str], None],
) -> list[_Looked]:
    """Return the wanted images, judged by models that are trained for it on the other images."""
    from maskloop.curation.review.folds import look_in_folds
    from maskloop.learning.data.training_set import corrections_to_examples
    from maskloop.segmentation.checkpoint import load_checkpoint

    if not bases:
        raise TrainingError(
            f"review of project {project_id} by folds",
            expected="a version of its model that has not learnt from its images",
            got="none: the first version was removed",
            remedy="review without --folds",
        )
    settings = services.settings
    images = TrainingImages(services.image_cache, services.fetcher, settings)
    examples = corrections_to_examples(
        corrections,
        plan=plan,
        image_cache=services.image_cache,
        ignored_labels=settings.ignore_labels,
        learnt_versions=(),
        groups=near_groups(corrections, store=services.store, images=images),
    )
    of_key = {example.key: one for example, one in zip(examples, corrections, strict=True)}
    judged = {_place(one) for one in wanted}
    evidence = look_in_folds(
        load_checkpoint(bases[-1].path, device=settings.device, training=True),
        examples,
        {key for key, one in of_key.items() if _place(one) in judged},
        labels=plan.classes,
        task=task,
        folds=folds,
        work_dir=settings.runs_dir / f"review-{project_id}",
        settings=settings,
        say=say,
    )
    return [
        _Looked(correction=of_key[key], image=_image(of_key[key], found, plan), version="folds")
        for key, found in evidence
    ]


def _image(correction: Correction, evidence: Evidence, plan: LabelPlan) -> ReviewImage:
    from maskloop.curation.review.suspicion import ReviewImage

    drawn = [one for one in correction.segments if one.label != UNLABELLED and not one.is_box]
    return ReviewImage(
        key=f"{correction.task_id}/{correction.view}/{correction.image_index}",
        size_hw=correction.size_hw,
        regions=tuple(dataclasses.replace(one, label=plan.class_for(one.label)) for one in drawn),
        evidence=(evidence,),
        ignored=tuple(one for one in correction.segments if one.label == UNLABELLED or one.is_box),
    )


def _as_classes(correction: Correction, plan: LabelPlan) -> Correction:
    segments = tuple(dataclasses.replace(one, label=plan.class_for(one.label)) for one in correction.segments)
    return dataclasses.replace(correction, segments=segments)


def _place(correction: Correction) -> Place:
    return correction.task_id, correction.view, correction.image_index


def _segment(suspicion: Suspicion, image: ReviewImage) -> Segment:
    if suspicion.region is not None:
        return image.regions[suspicion.region]
    assert suspicion.proposal is not None  # an object that has no region
    return suspicion.proposal


def _to_stored(suspicion: Suspicion, features: Mapping[str, float], looked: _Looked) -> StoredSuspicion:
    correction = looked.correction
    return StoredSuspicion(
        task_id=correction.task_id,
        annotation_id=correction.annotation_id,
        version_id=correction.version_id,
        view=correction.view,
        image_index=correction.image_index,
        image_key=correction.image_key,
        kind=str(suspicion.kind),
        score=suspicion.score,
        segment=_segment(suspicion, looked.image),
        missing=suspicion.region is None,
        features=features,
    )


def _proposals(
    project_id: int,
    chosen: Sequence[tuple[Suspicion, StoredSuspicion]],
    by_key: Mapping[str, _Looked],
    champion: ModelVersion,
    services: Services,
) -> list[TaskProposal]:
    """Return each task's annotation with the proposals in it, the task with the likeliest error first.

    Tasks with boxes have none: a prediction would show them as masks, or not at all.
    """
    from maskloop.curation.review.proposal import corrected_regions
    from maskloop_studio.projects.prediction_plan import plan_project

    of_task: defaultdict[int, list[Suspicion]] = defaultdict(list)
    for suspicion, stored in chosen:
        of_task[stored.task_id].append(suspicion)
    images_of: defaultdict[int, list[_Looked]] = defaultdict(list)
    for looked in by_key.values():
        images_of[looked.correction.task_id].append(looked)
        if looked.correction.boxes:
            of_task.pop(looked.correction.task_id, None)
    project = plan_project(
        project_id,
        champion,
        settings=services.settings,
        client=services.client,
        projects=services.store.projects,
    )
    proposals = []
    for task_id, suspicions in of_task.items():
        task = services.client.task(task_id, project_id=project_id)
        if task is None:
            continue
        plan = project.of_task(task.data)
        regions = []
        for looked in images_of[task_id]:
            mine = [one for one in suspicions if one.image == looked.image.key]
            segments = corrected_regions(looked.image, mine)
            regions += _regions(segments, looked, plan, project, task.data)
        proposals.append(
            TaskProposal(
                task_id=task_id, regions=regions, score=max(one.score for one in suspicions), data=task.data
            )
        )
    return proposals


def _regions(
    segments: Sequence[Segment],
    looked: _Looked,
    plan: PredictionPlan,
    project: ProjectPlan,
    data: Mapping[str, object],
) -> list[dict[str, object]]:
    correction = looked.correction
    for image in project.images(data, place=f"task {correction.task_id}"):
        if correction.view in ("", image.to_name) and correction.image_index == (image.item_index or 0):
            prediction = Prediction(segments=tuple(segments), size_hw=correction.size_hw, confidence=1.0)
            return plan.regions(prediction, model_version=REVIEW_TAG, task_id=correction.task_id, image=image)
    return []


def _cards(
    chosen: Sequence[tuple[Suspicion, StoredSuspicion]],
    numbers: Sequence[int],
    by_key: Mapping[str, _Looked],
    services: Services,
) -> tuple[Card, ...]:
    from maskloop.curation.review.gallery import Card

    base = str(services.settings.label_studio_url or "").rstrip("/")
    return tuple(
        Card(
            number=number,
            suspicion=suspicion,
            read_image=functools.partial(_read, stored.image_key, services),
            region=None if stored.missing else stored.segment,
            where=f"task {stored.task_id}",
            link=f"{base}/projects/{by_key[suspicion.image].correction.project_id}/data?task={stored.task_id}"
            if base
            else None,
        )
        for (suspicion, stored), number in zip(chosen, numbers, strict=True)
    )


def _read(image_key: str, services: Services) -> RgbImage:
    from maskloop.segmentation.image import decode_image

    data = services.image_cache.get(image_key)
    return decode_image(data, max_pixels=services.settings.max_image_pixels)
