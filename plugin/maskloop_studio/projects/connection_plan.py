"""What `maskloop connect` would do to a project: checked and written down before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import LabelConfigError
from maskloop.label_pairs import find_mirror_pairs, labels_without_mirror
from maskloop.segmentation.source_labels import source_labels
from maskloop.shipped import ANY_OBJECT, BASE_MODEL, BASE_PHOTOS
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.labelstudio.webhooks import is_ours, webhook_headers
from maskloop_studio.projects.task_order import SAMPLING, tab_titles, tab_troubles
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from maskloop.settings import Settings
    from maskloop.types import ModelVersion
    from maskloop_studio.labelstudio.client import StudioBackend, StudioClient, StudioProject
    from maskloop_studio.services import Services

__all__ = ["BACKEND_TITLE", "ConnectionPlan", "our_backends", "plan_connection"]

BACKEND_TITLE = "maskloop"
_MAP_OBJECTS = (
    "where nearly all that stands out on the images is to be annotated, give the label of most of it "
    f'predicted_values="{ANY_OBJECT}" in the label config: it is outlined from the first image on'
)


@dataclass(frozen=True, kw_only=True)
class ConnectionPlan:
    """What connecting a project finds and changes; nothing is changed yet."""

    project_id: int
    title: str  # the project's
    label_config: str  # XML, as it was read for this plan
    backend_url: str  # where Label Studio reaches maskloop's server
    model: str  # tag of the champion, or the source that becomes version 1
    is_new_model: bool  # no version is registered yet
    matched: tuple[str, ...]  # labels that the model draws already
    unmatched: tuple[str, ...]  # labels it has to learn
    advice: str  # on the model that it starts from; empty where there is none
    mirrored: tuple[str, ...]  # one line each, about labels that swap in a mirror
    changes: tuple[str, ...]  # one line each, in the order in which they are made
    tasks: int  # without an annotation: they are predicted afterwards

    def lines(self) -> list[str]:
        """Return the plan for a person to read, one fact a line."""
        model = f"{self.model} becomes version 1" if self.is_new_model else f"{self.model} stays the champion"
        lines = [
            f"project {self.project_id} ({self.title})",
            f"  model: {model}",
            f"  labels it draws: {', '.join(self.matched) or 'none yet'}",
        ]
        if self.unmatched:
            lines.append(f"  labels it has to learn: {', '.join(self.unmatched)}")
        if self.advice:
            lines.append(f"  {self.advice}")
        lines += [f"  {line}" for line in self.mirrored]
        lines += [f"  {change}" for change in self.changes or ("nothing in Label Studio has to change",)]
        lines.append(f"  then: {self.tasks} tasks without an annotation are predicted")
        return lines


def plan_connection(
    project_id: int, backend_url: str, services: Services, *, new_labels: bool = False
) -> ConnectionPlan:
    """Check a project and return what connecting it would change.

    The labels come first, and of the model only its `config.json` is read: what cannot work fails in about
    a second.

    Args:
        project_id: Label Studio's number.
        backend_url: where Label Studio reaches maskloop's server.
        services: Label Studio, settings, registry and database.
        new_labels: accept a label config none of whose labels the model knows yet.

    Raises:
        LabelConfigError: no image, nothing to draw with, or no label that the model knows.
        ModelLoadError: the model of the settings cannot be found.
        StudioError: Label Studio refused.
    """
    client, settings = services.client, services.settings
    project = client.project(project_id)
    config = parse_label_config(project.label_config)
    champion = _champion(project_id, services)
    labels = champion.labels if champion is not None else source_labels(settings.model)
    try:
        unmatched = map_labels(config, labels).unmatched_labels
    except LabelConfigError as exc:
        if not new_labels:
            raise _unknown_labels(project, exc, labels, champion=champion, settings=settings) from exc
        unmatched = config.all_labels
    headers = webhook_headers(settings, services.store)
    return ConnectionPlan(
        project_id=project_id,
        title=project.title,
        label_config=project.label_config,
        backend_url=backend_url,
        model=settings.model if champion is None else champion.tag,
        is_new_model=champion is None,
        matched=tuple(label for label in config.all_labels if label not in unmatched),
        unmatched=unmatched,
        advice=_advice(settings.model, labels) if champion is None and unmatched == config.all_labels else "",
        mirrored=_mirror_lines(config.all_labels, settings.mirror_pairs),
        changes=tuple(
            [
                *_backend_changes(project_id, backend_url, headers, client),
                *_order_changes(project, client, tabs=settings.order_tabs),
            ]
        ),
        tasks=client.count_tasks(project_id, only_unlabelled=True),
    )


def our_backends(
    project_id: int, headers: Mapping[str, str], client: StudioClient, *, title: str | None = None
) -> list[StudioBackend]:
    """Return a project's labeling backends whose webhook carries our secret, or that have this title.

    Raises:
        StudioError: Label Studio cannot be reached or refuses.
    """
    addresses = {hook["url"].rstrip("/") for hook in client.webhooks(project_id) if is_ours(hook, headers)}
    return [
        backend
        for backend in client.backends(project_id)
        if f"{backend.url.rstrip('/')}/webhook" in addresses or backend.title == title
    ]


def _champion(project_id: int, services: Services) -> ModelVersion | None:
    settings = services.settings
    if settings.mlflow_tracking_uri is None and not settings.registry_file.exists():
        return None  # a first run: making MLflow's database takes half a minute
    return services.registry.champion(model_name(project_id))


def _advice(model: str, classes: Sequence[str]) -> str:
    """Return what to start from, or how, where the model knows none of the labels."""
    if tuple(classes) == (ANY_OBJECT,):
        return f"it knows no names; {_MAP_OBJECTS}"
    if model != str(BASE_MODEL):
        return ""
    return (
        f"{BASE_MODEL.name} knows made-up shapes only: for photos MASKLOOP_MODEL={BASE_PHOTOS.name} learns "
        "from fewer corrections, and a checkpoint trained on photos like yours is better still"
    )


def _unknown_labels(
    project: StudioProject,
    exc: LabelConfigError,
    classes: Sequence[str],
    *,
    champion: ModelVersion | None,
    settings: Settings,
) -> LabelConfigError:
    number = project.id
    own = (
        f"(1) set MASKLOOP_MODEL to a checkpoint that knows them, a folder of your own or a name on the hub: "
        f"`maskloop models suggest {number}` lists published ones, and {BASE_PHOTOS.name} comes with maskloop"
    )
    if tuple(classes) == (ANY_OBJECT,):
        own = f"(1) {_MAP_OBJECTS}"
    elif champion is not None:
        own = (
            f"(1) give the labels that mean a class of {champion.tag} the attribute predicted_values "
            "(MASKLOOP_MODEL counts only where a project has no version yet)"
        )
    return LabelConfigError(
        f"project {number} ({project.title}), model {champion.tag if champion else settings.model}",
        expected=exc.expected,
        got=exc.got,
        remedy=f"choose one of three ways: {own}; (2) `maskloop connect {number} --new-labels`: annotate "
        "some images by hand, and training teaches the model these labels; (3) `maskloop demo` shows the "
        "whole loop on images whose labels the model knows",
    )


def _mirror_lines(labels: Sequence[str], named: Sequence[tuple[str, str]] | None) -> tuple[str, ...]:
    """Return which labels swap in mirrored views, and where that has to be confirmed."""
    if named is not None:
        return (f"labels that swap in a mirror, as set: {_pairs_text(named)}",) if named else ()
    found = find_mirror_pairs(labels)
    lines = []
    sure = [pair.names for pair in found if pair.sure]
    unsure = [pair.names for pair in found if not pair.sure]
    alone = labels_without_mirror(labels)
    if sure:
        lines.append(f"labels that swap in a mirror: {_pairs_text(sure)}")
    if unsure:
        lines.append(
            f"taken to swap in a mirror, by an abbreviation only: {_pairs_text(unsure)}; if they do not, set "
            "MASKLOOP_MIRROR_PAIRS to the pairs that do ([] for none)"
        )
    if alone:
        lines.append(
            f"no label is the mirror of {_quoted(alone)}: if one is, name the pair in MASKLOOP_MIRROR_PAIRS"
        )
    return tuple(lines)


def _pairs_text(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f'"{one}" and "{other}"' for one, other in pairs)


def _backend_changes(
    project_id: int, backend_url: str, headers: Mapping[str, str], client: StudioClient
) -> list[str]:
    url = backend_url.rstrip("/")
    here = [backend for backend in client.backends(project_id) if backend.url.rstrip("/") == url]
    changes = [
        f"labeling backend at the earlier address {old.url}: removed, with its webhook"
        for old in our_backends(project_id, headers, client)
        if old.url.rstrip("/") != url
    ]
    if not here:
        changes.append(f"labeling backend {BACKEND_TITLE} at {url}: added, with a webhook for all events")
    if not (here and here[0].is_interactive):
        changes.append("interactive preannotations (smart tools call the model): switched on")
    return changes


def _order_changes(project: StudioProject, client: StudioClient, *, tabs: int) -> list[str]:
    changes = []
    if project.sampling != SAMPLING:
        changes.append(f"task sampling: {project.sampling or 'none'} -> {SAMPLING}")
    if tab_troubles(client.views(project.id), tabs):
        changes.append(f"Data Manager tabs: {_quoted(tab_titles(tabs))} added or put in order")
    return changes


def _quoted(titles: Sequence[str]) -> str:
    return ", ".join(f'"{title}"' for title in titles)
