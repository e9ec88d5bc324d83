"""A version of an annotation -> its masks on each image of its task, or why it is set aside."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import CodecError, LabelConfigError
from maskloop.log import log_action, log_failures
from maskloop.similarity import perceptual_hash
from maskloop.store.corrections import DerivedMasks
from maskloop.store.holdout import is_blind
from maskloop_studio.formats import annotation_to_segments, config_for_task
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.result_items import sort_items
from maskloop_studio.formats.task_data import task_images
from maskloop_studio.intake.prediction_edits import edits_of_prediction

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.annotations import AnnotationVersion
    from maskloop_studio.formats import AnnotationContent, LabelConfig, TaskImage
    from maskloop_studio.intake.parts import IntakeParts

__all__ = ["READER_VERSION", "AnnotationReading", "read_again", "read_version"]

logger = logging.getLogger(__name__)
READER_VERSION = 1  # raise it when annotations are read in another way: stored ones are then read again
LABEL_REMEDY = (
    "add the label to the label config, name it in `predicted_values` of a <Label>, or set "
    'MASKLOOP_LABEL_RENAMES="old=new"'
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotationReading:
    """What one version of an annotation teaches: masks, or nothing for a reason."""

    images: tuple[DerivedMasks, ...] = ()  # once for each image that it teaches something about
    set_aside: str | None = None  # why nothing is learnt from it, nor judged by it


def read_version(
    version: AnnotationVersion, data: Mapping[str, object], parts: IntakeParts
) -> AnnotationReading:
    """Return what a version teaches.

    It is read with the label config that it was made under; where that fails, with the project's config.

    Args:
        version: the version.
        data: its task's.
        parts: what reading needs.

    Raises:
        ImageError: an image cannot be fetched or decoded.
        StudioError: Label Studio does not answer.
    """
    project_config = parts.store.projects.label_config(version.project_id)
    configs = dict.fromkeys(text for text in (version.label_config, project_config) if text)
    first: AnnotationReading | None = None
    for text in configs:
        reading = _read(version, text, data, parts)
        if reading.set_aside is None:
            return reading
        first = first or reading
    return first or AnnotationReading(set_aside=f"{_place(version)}: no label config is stored for it")


def read_again(
    version: AnnotationVersion, old: DerivedMasks, *, config_text: str, settings: Settings
) -> AnnotationReading | None:
    """Return what a version teaches by today's reader, from stored values only.

    Args:
        version: the version.
        old: its masks by an older reader; their image is the task's only one.
        config_text: the label config that it was made under, or the project's.
        settings: see `read_version`.

    Returns:
        The reading; None where the task itself is needed: its config has several images or dynamic labels.
    """
    place = _place(version)
    try:
        config = parse_label_config(config_text)
    except LabelConfigError as exc:
        return AnnotationReading(set_aside=f"{place}: {exc}")
    if _has_views(config) or config.is_dynamic:
        return None
    try:
        result = _result_of(version)
        content = annotation_to_segments(
            result,
            config,
            size_hw=old.size_hw,
            place=place,
            label_renames=settings.label_renames,
            keep_unknown=True,
        )
    except CodecError as exc:
        return AnnotationReading(set_aside=str(exc))
    reason = content.set_aside or _answers_only(content, place, settings)
    if reason is not None:
        return AnnotationReading(set_aside=reason)
    _log_content(content, version)
    masks = DerivedMasks(
        image_key=old.image_key,
        image_uri=old.image_uri,
        size_hw=old.size_hw,
        segments=content.segments,
        edits=old.edits,
        model_version=old.model_version,
        label_edits=old.label_edits,
        outcomes=old.outcomes,
        deleted=old.deleted,
    )
    return AnnotationReading(images=(masks,))


def _read(
    version: AnnotationVersion, config_text: str, data: Mapping[str, object], parts: IntakeParts
) -> AnnotationReading:
    place = _place(version)
    try:
        result = _result_of(version)
        project_config = parse_label_config(config_text)
        config = config_for_task(project_config, data)
        images = task_images(config, data, place=place)
        drawn = [image for image in images if _is_drawn_on(result, config, image, place)]
        if result and not drawn and not parts.settings.empty_with_other_answers:
            return AnnotationReading(set_aside=_answers_only_reason(place))
        # Only an annotation without any answer teaches that nothing is on an image; one that has regions on
        # some images of its task teaches nothing about the others.
        predicted = _prediction_of(version.content, parts)
        found = [
            _read_image(
                version,
                image,
                config,
                predicted=predicted,
                # Trainings match stored labels once more, but not those of a task with labels of its own.
                keep_unknown=not project_config.is_dynamic,
                parts=parts,
            )
            for image in drawn or images
        ]
    except (CodecError, LabelConfigError) as exc:
        return AnnotationReading(set_aside=str(exc))
    reason = next((reason for _, reason in found if reason is not None), None)
    if reason is not None:
        return AnnotationReading(set_aside=reason)
    return AnnotationReading(images=tuple(masks for masks, _ in found))


def _read_image(
    version: AnnotationVersion,
    image: TaskImage,
    config: LabelConfig,
    *,
    predicted: Mapping[str, Any],
    keep_unknown: bool,
    parts: IntakeParts,
) -> tuple[DerivedMasks, str | None]:
    """Return the masks on one image, and why the annotation has to be set aside (None where it need not)."""
    from maskloop.segmentation.image import decode_image

    data = parts.fetcher.fetch(image.address, task_id=version.task_id)
    image_hwc = decode_image(data, max_pixels=parts.settings.max_image_pixels)
    height, width = image_hwc.shape[:2]
    image_key = parts.image_cache.put(data)
    parts.store.holdout.add_hash(image_key, perceptual_hash(image_hwc))
    if is_blind(image_key, parts.settings.blind_below):
        predicted = {}  # none was shown: nothing of it was edited
    result = _result_of(version)
    read = functools.partial(
        annotation_to_segments,
        config=config,
        size_hw=(height, width),
        place=_place(version),
        image=image,
        label_renames=parts.settings.label_renames,
        keep_unknown=keep_unknown,
    )
    content = read(result)
    if content.set_aside is None:
        _log_content(content, version)
    here = list(_regions_of(result, image, config))
    edits = edits_of_prediction(
        content,
        here,
        list(_regions_of(predicted.get("result") or (), image, config)) if predicted else None,
        read=read,
        place=_place(version),
    )
    masks = DerivedMasks(
        image_key=image_key,
        image_uri=image.address,
        size_hw=(height, width),
        segments=content.segments,
        edits=edits.total,
        model_version=_maker(version, predicted, parts),
        label_edits=edits.by_label,
        outcomes=edits.outcomes,
        deleted=edits.deleted,
        view=image.to_name if _has_views(config) else "",
        image_index=image.item_index or 0,
    )
    return masks, content.set_aside


def _maker(version: AnnotationVersion, predicted: Mapping[str, Any], parts: IntakeParts) -> str | None:
    """Return the version that drew a prediction: on a trial not always the one that it is named after."""
    named = predicted.get("model_version")
    if not isinstance(named, str) or not named:
        return named
    return parts.store.scores.made_by(version.project_id, named, version.task_id)


def _has_views(config: LabelConfig) -> bool:
    """Return whether a task may have several images, so that a correction must name its image."""
    return len(config.drawn_images) > 1 or config.drawn_images[0].is_list


def _is_drawn_on(result: Sequence[Any], config: LabelConfig, image: TaskImage, place: str) -> bool:
    items = sort_items(result, config, image=image, place=place)
    return bool(items.drawn or items.refusals)


def _regions_of(result: Sequence[Any], image: TaskImage, config: LabelConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the items of a `result` that belong to one image."""
    one_image = not _has_views(config)
    for item in result:
        if not isinstance(item, Mapping):
            continue
        page = item.get("item_index") or 0
        if one_image or (item.get("to_name") == image.to_name and page == (image.item_index or 0)):
            yield item


def _result_of(version: AnnotationVersion) -> list[Any]:
    result = version.content.get("result")
    if result is None:
        return []
    if not isinstance(result, list):
        raise CodecError(
            _place(version),
            expected="a list of regions",
            got=type(result).__name__,
            remedy="save the annotation again in Label Studio",
        )
    return result


def _answers_only(content: AnnotationContent, place: str, settings: Settings) -> str | None:
    if content.other_answers and not settings.empty_with_other_answers:
        return _answers_only_reason(place)
    return None


def _answers_only_reason(place: str) -> str:
    return (
        f"{place}: expected regions, or no answer at all, got only answers of other controls; where these "
        "mean that nothing is on the image, set MASKLOOP_EMPTY_WITH_OTHER_ANSWERS=true"
    )


def _log_content(content: AnnotationContent, version: AnnotationVersion) -> None:
    log_failures(
        logger,
        "regions_unlabelled",
        [(None, refusal) for refusal in content.refusals],
        task_id=version.task_id,
        annotation_id=version.annotation_id,
    )
    unknown = Counter(content.unknown_labels)
    if unknown:
        log_action(
            logger,
            "labels_unknown",
            level=logging.WARNING,
            task_id=version.task_id,
            annotation_id=version.annotation_id,
            labels=", ".join(f"{label} ({count})" for label, count in unknown.most_common(20)),
            remedy=LABEL_REMEDY,
        )
    if content.notes:
        log_failures(
            logger,
            "regions_adjusted",
            [(None, note) for note in content.notes],
            level=logging.INFO,
            task_id=version.task_id,
            annotation_id=version.annotation_id,
        )


def _prediction_of(annotation: Mapping[str, Any], parts: IntakeParts) -> Mapping[str, Any]:
    prediction_id = annotation.get("parent_prediction")
    return (parts.client.prediction(int(prediction_id)) if prediction_id else None) or {}


def _place(version: AnnotationVersion) -> str:
    return f"task {version.task_id}, annotation {version.annotation_id}"
