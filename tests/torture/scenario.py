"""One run: people work, parts are killed, all comes to rest, and both sides are compared."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image
from tests.fakes.http_host import HttpHost

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.store.database import Store
from maskloop_studio.demo.images import DemoImage, demo_label_config
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.labelstudio.client import StudioClient
from maskloop_studio.projects.training import model_name
from maskloop_studio.services import Services

from . import reading, verdict
from .annotators import Annotator, Desk, damaged, draw_pages
from .killer import Ground, Killer, plan_strikes
from .loop import Loop
from .processes import VICTIMS
from .studio_view import StudioApi, StudioView

SIZE_HW = (64, 64)
IMAGES = 6
FIRST_SEED = 910_000
FIRST_TASKS = 12
DEADLINE_S = 2.0  # of a request for predictions
SLOW_S = 3.0  # what the host of one image takes: its predictions are cut off and follow later
CALM_SAMPLES = 6  # in a row, half a second apart, before the loop counts as being at rest
SAMPLE_S = 0.5
MANY_KILLS = 50
SAY_S = 10.0  # between two lines while the loop comes to rest


def _nothing() -> None:
    """Nothing else has to be watched."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does."""

    seed: int
    kills: int
    people: int = 3
    pace_s: float = 0.5  # what one of them thinks between two deeds
    strike_s: float = 2.0  # between two kills
    victims: Sequence[str] = VICTIMS  # of the loop
    patience_s: float = 180.0  # for the loop to come to rest
    variables: Mapping[str, str] = field(default_factory=dict)  # of the loop
    outside: Mapping[str, Callable[[], bool]] = field(
        default_factory=dict
    )  # other victims -> what kills them
    watch: Callable[[], None] = _nothing  # to be called again and again, from the main thread


@dataclass(kw_only=True)
class Outcome:
    """What came of it."""

    seed: int
    home: Path
    kills: Counter[str]
    pauses: Counter[str]
    missed: Counter[str]
    deeds: Counter[str]
    refused: Counter[str]
    own_ends: list[str]
    starts: Counter[str]
    figures: dict[str, object]
    verdict: verdict.Verdict
    seconds: dict[str, float]


class Run:
    """One run in progress; everything that needs the main thread happens in `go`."""

    def __init__(
        self, plan: Plan, studio: RealStudio, home: Path, *, slow: HttpHost, say: Callable[[str], None]
    ) -> None:
        """Args:
        plan: what happens.
        studio: where people work.
        home: of the loop.
        slow: a host of images whose answers take `SLOW_S`.
        say: takes a line about what happens.
        """
        self._plan = plan
        self._slow = slow
        self._studio = studio
        self._print = say
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}
        variables = {
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": studio.token,
            "MASKLOOP_TRAIN_STEPS": "6",
            "MASKLOOP_TRAIN_AFTER": "6",
            "MASKLOOP_TRAIN_QUIET_S": "0",
            "MASKLOOP_KEEP_VERSIONS": "1000",  # each training is held against its version
            # Promoted on a whim: it is renewals that are wanted, not good models.
            "MASKLOOP_GATE_CONFIDENCE": "0.5",
            "MASKLOOP_GATE_CLASS_DROP": "1.0",
            "MASKLOOP_GATE_SLOWDOWN": "1000",
            "MASKLOOP_PREDICT_DEADLINE_S": str(DEADLINE_S),
            "MASKLOOP_ALLOW_PRIVATE_IMAGES": "true",  # the slow host is on loopback
            "MASKLOOP_SYNC_MINUTES": "600",  # what the webhooks alone bring is counted first
            **plan.variables,
        }
        self.loop = Loop(home, variables)

    def go(self) -> Outcome:
        """Do all of it and return what came of it; the loop is ended whatever happens."""
        try:
            return self._go()
        finally:
            self.loop.stop()

    def _go(self) -> Outcome:
        with self._timed("set up"):
            project_id, desk = self._set_up()
        with self._timed("under fire"):
            killer, people = self._under_fire(desk)
        settings = self.loop.settings()
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(contextlib.closing(Store(settings.resolved_database_url)))
            services = stack.enter_context(contextlib.closing(Services(settings)))
            api = stack.enter_context(StudioApi(self._studio.url, self._studio.token))
            found = verdict.Verdict()
            with self._timed("to rest"):
                found.add("open work", self._come_to_rest(store))
            view = api.view(project_id)
            alone = verdict.differences(view.said, reading.read_said(store, project_id))
            with self._timed("sync"):
                found.add("sync", self._sync(project_id))
                found.add("open work after sync", self._come_to_rest(store))
            view = api.view(project_id)
            self._compare(found, view, store, services, project_id, desk)
            figures = self._figures(store, services, project_id, view, alone)
        with self._timed("end"):
            found.add("did not end by SIGTERM", self.loop.stop())
        return Outcome(
            seed=self._plan.seed,
            home=self.loop.home,
            kills=killer.kills,
            pauses=killer.pauses,
            missed=killer.missed,
            deeds=sum((person.deeds for person in people), Counter()),
            refused=sum((person.refused for person in people), Counter()),
            own_ends=self.loop.own_ends,
            starts=self.loop.starts,
            figures=figures,
            verdict=found,
            seconds=self._seconds,
        )

    def _set_up(self) -> tuple[int, Desk]:
        self._watch()
        client = StudioClient(self._studio.url, self._studio.token)
        label_config = demo_label_config(SHAPE_CLASSES).replace('value="$image"', 'valueList="$pages"', 1)
        project = client.create_project(f"torture {self._plan.seed}", label_config)
        images = {
            client.upload_image(project.id, image.name, image.data): image
            for image in map(_make_image, range(FIRST_SEED, FIRST_SEED + IMAGES))
        }
        pages = [[uri] for uri in itertools.islice(itertools.cycle(images), FIRST_TASKS)]
        tasks = client.import_tasks(project.id, [{"data": {"pages": uris}} for uris in pages])
        self._until(self._answers, "an answer from the server", patience_s=60.0)
        self._say(self.loop.run("connect", str(project.id)).strip())
        (backend,) = client.backends(project.id)
        slow = _make_image(FIRST_SEED + IMAGES)
        address = f"{self._slow.url}/{slow.name}"
        self._slow.pages[f"/{slow.name}"] = (200, {"Content-Type": "image/png"}, slow.data)
        desk = Desk(project.id, backend.id, images | {address: slow}, parse_label_config(label_config))
        desk.add_tasks(dict(zip(tasks, pages, strict=True)))
        self._begin(desk, client, address)
        client.close()
        return project.id, desk

    def _begin(self, desk: Desk, client: StudioClient, slow: str) -> None:
        """Do once, before the first kill, what people do seldom: so that no run is without it."""
        rng = random.Random(f"begin:{self._plan.seed}")
        quick = min(desk.images.keys() - {slow})
        pages = [[slow], [slow, quick], [quick, slow], [quick], [quick]]
        tasks = client.import_tasks(desk.project_id, [{"data": {"pages": uris}} for uris in pages])
        desk.add_tasks(dict(zip(tasks, pages, strict=True)))
        with StudioApi(self._studio.url, self._studio.token) as api:
            api.act(desk.project_id, "retrieve_tasks_predictions", tasks[:3])
        for number, task_id in enumerate(tasks[2:]):
            result = damaged(draw_pages(desk.pages(task_id), desk.config, rng), rng)
            made = int(client.create_annotation(task_id, {"result": result, "lead_time": 1.0})["id"])
            desk.add_annotation(made, task_id, unreadable=True)
            if number:
                client.update_annotation(made, result=draw_pages(desk.pages(task_id), desk.config, rng))
                desk.add_annotation(made, task_id)

    def _under_fire(self, desk: Desk) -> tuple[Killer, list[Annotator]]:
        plan = self._plan
        people = [
            Annotator(number, desk, self._studio.url, self._studio.token, seed=plan.seed, mean_s=plan.pace_s)
            for number in range(plan.people)
        ]
        ground = Ground(parts=self.loop.parts, send=self.loop.send, outside=plan.outside, say=self._say)
        victims = [*plan.victims, *plan.outside]
        strikes = plan_strikes(plan.seed, plan.kills, mean_s=plan.strike_s, victims=victims)
        killer = Killer(strikes, ground, seed=plan.seed)
        for thread in (*people, killer):
            thread.start()
        try:
            while killer.is_alive():
                self._watch()
                time.sleep(0.1)
        finally:
            for person in people:
                person.stop()
            killer.stop()
        for person in people:
            while person.is_alive():
                self._watch()
                person.join(0.1)
            if person.broken is not None:
                raise person.broken
        return killer, people

    def _come_to_rest(self, store: Store) -> list[str]:
        """Wait until nothing is left to do; return what is left when patience ends."""
        deadline = time.monotonic() + self._plan.patience_s
        calm = 0
        say_at = time.monotonic()
        left: Counter[str] = Counter()
        while calm < CALM_SAMPLES and time.monotonic() < deadline:
            self._watch()
            left = reading.read_open(store)
            if time.monotonic() >= say_at:
                self._say(f"open: {dict(left) or 'nothing'}")
                say_at = time.monotonic() + SAY_S
            calm = 0 if left or not self.loop.is_whole() else calm + 1
            time.sleep(SAMPLE_S)
        if calm >= CALM_SAMPLES:
            return []
        missing = "" if self.loop.is_whole() else "; not all parts live"
        return [f"{count} {name}{missing}" for name, count in left.items()] or [f"never at rest{missing}"]

    def _sync(self, project_id: int) -> list[str]:
        try:
            self._say(self.loop.run("sync", str(project_id)).strip())
        except AssertionError as exc:
            return [str(exc)]
        return []

    def _compare(
        self,
        found: verdict.Verdict,
        view: StudioView,
        store: Store,
        services: Services,
        project_id: int,
        desk: Desk,
    ) -> None:
        name = model_name(project_id)
        for kind, faults in verdict.differences(view.said, reading.read_said(store, project_id)).items():
            found.add(kind, faults)
        corrections = reading.read_corrections(store, project_id)
        found.add("masks", verdict.mask_faults(view, corrections, desk.config))
        set_aside = reading.read_set_aside(store, project_id)
        found.add("set aside", verdict.set_aside_faults(view.said, set_aside))
        # Whether one of a few kills meets a slow request is chance; of many, one does.
        was_cut_off = self._plan.kills < MANY_KILLS or self._logged("deadline_reached")
        found.add("never cut off", [] if was_cut_off else ["no request for predictions met its deadline"])
        champion = services.registry.champion(name)
        for kind, faults in verdict.prediction_faults(view, champion.tag if champion else "").items():
            found.add(kind, faults)
        versions = [version.tag for version in services.registry.versions(name)]
        found.add("trainings", verdict.training_faults(store.trainings.of(project_id), versions))
        found.add("dead letters", reading.read_dead(store))
        found.add("files", list(verdict.file_faults(self.loop.home)))
        found.add("models", list(verdict.model_faults(services.registry, name)))
        supervisor = [end for end in self.loop.own_ends if end.startswith("up,")]
        found.add("supervisor ended by itself", supervisor)

    def _figures(
        self,
        store: Store,
        services: Services,
        project_id: int,
        view: StudioView,
        alone: Mapping[str, list[str]],
    ) -> dict[str, object]:
        trainings = store.trainings.of(project_id)
        missed = sum(len(alone[kind]) for kind in ("lost", "out of date", "left behind"))
        return {
            **reading.count_effort(store),
            "jobs": dict(reading.count_jobs(store)),
            "annotations": len(view.said),
            "of them skipped": sum(row.state == "skipped" for row in view.said.values()),
            "of them set aside": sum(
                row.state == "submitted" and not row.is_readable for row in view.said.values()
            ),
            "set aside at some time": self._logged("annotation_set_aside"),
            "on several images": sum(len(row.pages) > 1 for row in view.said.values()),
            "requests cut off": self._logged("deadline_reached"),
            "right before the sync": len(view.said) - len(alone["lost"]) - len(alone["out of date"]),
            "repaired by the sync": missed,
            "workers ended by themselves": len(self.loop.own_ends),
            "tasks": len(view.predictions),
            "predictions": sum(map(len, view.predictions.values())),
            "trainings": len(trainings),
            "promoted": sum(bool((row.outcome or {}).get("promoted")) for row in trainings),
            "files left by killed writers": len(list((self.loop.home / "images" / "new").glob("*"))),
            "training folders left": len(list((self.loop.home / "runs").glob("*"))),
            "versions": len(services.registry.versions(model_name(project_id))),
        }

    def _logged(self, action: str) -> int:
        """Return how often the loop's parts logged an action."""
        logs = self.loop.log_dir.glob("*.log*")
        return sum(path.read_text(errors="replace").count(action) for path in logs)

    def _watch(self) -> None:
        self._plan.watch()
        self.loop.watch()

    def _say(self, text: str) -> None:
        self._print(f"{time.monotonic() - self._begun:7.1f} s  {text}")

    def _answers(self) -> bool:
        self._watch()
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.loop.port}/health"
            answer = httpx.get(url, timeout=1.0, trust_env=False)
            return answer.is_success and answer.json()["model"]["state"] != "loading"
        return False

    def _until(self, reached: Callable[[], bool], what: str, *, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} in {patience_s:g} s; see {self.loop.log_dir}")
            time.sleep(SAMPLE_S)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._say(f"--- {name}")
        yield
        self._seconds[name] = round(time.monotonic() - begun, 1)


def _make_image(seed: int) -> DemoImage:
    made = make_image(seed, size_hw=SIZE_HW, domain="shifted")
    buffer = io.BytesIO()
    Image.fromarray(made.image_hwc).save(buffer, format="PNG")
    return DemoImage(
        name=f"torture-{seed}.png", data=buffer.getvalue(), segments=made.segments, size_hw=SIZE_HW
    )
