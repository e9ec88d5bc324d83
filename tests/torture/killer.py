"""Who is killed when: drawn from a seed before anything runs, then done while the loop works."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .processes import VICTIMS, Part

WEIGHTS = {
    "server": 3.0,
    "intake": 3.0,
    "predict": 3.0,
    "second": 2.0,
    "train": 1.5,
    "horse": 2.5,
    "scheduler": 1.5,
    "queue": 2.5,
    "supervisor": 1.0,
}
PAUSED = ("server", "intake", "predict", "second", "horse", "queue", "scheduler")
LEASED = ("intake", "predict", "second", "horse")
KILLS_PER_PAUSE = 4
LONG_PAUSE_S = (21.0, 26.0)  # longer than a lease lasts, so that a job is taken over under its owner
SHORT_PAUSE_S = (0.5, 5.0)
PATIENCE_S = 3.0  # for a victim to appear; then its turn comes again in the end, with
LAST_PATIENCE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One blow."""

    after_s: float  # since the one before
    victim: str
    pause_s: float | None = None  # stopped for so long, and killed where None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where the killer works."""

    parts: Callable[[], Sequence[Part]]  # living processes
    send: Callable[[Part, signal.Signals], bool]
    outside: Mapping[str, Callable[[], bool]]  # victims beside the loop -> what kills them, if they live
    say: Callable[[str], None]


def plan_strikes(seed: int, kills: int, *, mean_s: float, victims: Sequence[str] = VICTIMS) -> list[Strike]:
    """Return what happens in the order of time; the same seed gives the same plan.

    Args:
        seed: of all choices.
        kills: how many SIGKILLs; pauses come on top, one for every four.
        mean_s: between two blows, on average.
        victims: who may be hit; each of them is, where there are kills enough.
    """
    rng = random.Random(f"strikes:{seed}")
    first = rng.sample(list(victims), k=min(kills, len(victims)))
    rest = rng.choices(list(victims), [WEIGHTS.get(name, 1.5) for name in victims], k=kills - len(first))
    chosen: list[tuple[str, float | None]] = [(name, None) for name in (*first, *rest)]
    for number in range(kills // KILLS_PER_PAUSE):
        span, those = (LONG_PAUSE_S, LEASED) if number % 3 == 0 else (SHORT_PAUSE_S, PAUSED)
        whom = rng.choice([name for name in those if name in victims])
        # Long ones early: they run out before everything has to come to rest.
        chosen.insert(rng.randrange(max(1, 2 * len(chosen) // 3)), (whom, rng.uniform(*span)))
    return [
        Strike(after_s=min(rng.expovariate(1 / mean_s), 3 * mean_s), victim=victim, pause_s=pause_s)
        for victim, pause_s in chosen
    ]


class Killer(threading.Thread):
    """Carries out a plan."""

    def __init__(self, strikes: Sequence[Strike], ground: Ground, *, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self.kills: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # nobody of that role appeared in time
        self._strikes = strikes
        self._ground = ground
        self._rng = random.Random(f"killer:{seed}")
        self._ended = threading.Event()
        self._paused: list[tuple[float, Part]] = []  # until when

    def stop(self) -> None:
        """Strike no more; what is paused goes on."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Work until the plan is done or `stop`."""
        postponed = []
        for number, strike in enumerate(self._strikes, start=1):
            if self._wait(strike.after_s) and not self._strike(strike, f"[{number}]", PATIENCE_S):
                postponed.append((f"[{number}, postponed]", strike))
        for counter, strike in postponed:
            if self._wait(strike.after_s) and not self._strike(strike, counter, LAST_PATIENCE_S):
                self.missed[strike.victim] += 1
                self._ground.say(f"{counter} no {strike.victim} to be found")
        while self._paused and self._wait(0.2):
            pass
        for _, part in self._paused:
            self._ground.send(part, signal.SIGCONT)

    def _strike(self, strike: Strike, counter: str, patience_s: float) -> bool:
        """Do it; return False where there was nobody to be hit."""
        deadline = time.monotonic() + patience_s
        while not self._ended.is_set():
            if strike.victim in self._ground.outside:
                done = self._ground.outside[strike.victim]()
                self._note(self.kills, strike.victim, f"{counter} SIGKILL", done=done)
            else:
                done = self._hit(strike, counter)
            if done:
                return True
            if time.monotonic() > deadline or not self._wait(0.1):
                return False
        return True

    def _hit(self, strike: Strike, counter: str) -> bool:
        found = [part for part in self._ground.parts() if part.role == strike.victim]
        if not found:
            return False
        part = self._rng.choice(sorted(found, key=lambda part: part.pid))
        if strike.pause_s is None:
            done = self._ground.send(part, signal.SIGKILL)
            self._note(self.kills, strike.victim, f"{counter} SIGKILL", done=done)
            return done
        done = self._ground.send(part, signal.SIGSTOP)
        if done:
            self._paused.append((time.monotonic() + strike.pause_s, part))
        self._note(self.pauses, strike.victim, f"{counter} SIGSTOP, {strike.pause_s:.1f} s:", done=done)
        return done

    def _note(self, counts: Counter[str], victim: str, what: str, *, done: bool) -> None:
        if done:
            counts[victim] += 1
            self._ground.say(f"{what} {victim}")

    def _wait(self, seconds: float) -> bool:
        """Return after a while, or False where it is time to stop; what was paused long enough goes on."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for entry in [entry for entry in self._paused if entry[0] <= time.monotonic()]:
                self._paused.remove(entry)
                self._ground.send(entry[1], signal.SIGCONT)
            if self._ended.wait(min(0.1, max(0.0, deadline - time.monotonic()))):
                return False
        return not self._ended.is_set()
