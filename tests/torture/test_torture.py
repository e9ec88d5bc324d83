"""The fault test: the real loop loses nothing while its parts are killed at random moments.

MASKLOOP_TORTURE_KILLS and MASKLOOP_TORTURE_SEED make it longer and other; `make torture KILLS=200 SEED=7`.
"""

import os
import sys

import pytest
from tests.fakes.http_host import run_host

from .report import outcome_to_json, report_lines
from .scenario import SLOW_S, Plan, Run

KILLS = int(os.environ.get("MASKLOOP_TORTURE_KILLS") or 10)  # each victim once
IS_SHORT = KILLS < 30
SEED = int(os.environ.get("MASKLOOP_TORTURE_SEED") or 1)
PATIENCE_S = 120.0 + KILLS
STRIKE_S = 1.0 if IS_SHORT else 2.0  # between two kills
# The second scenario kills each part once; in its short form nothing is trained.
PARTS = ("server", "reader", "intake", "predict", "second", "scheduler", "supervisor")
TRAINING_PARTS = ("train", "horse")


def _say(line):
    print(line, file=sys.stdout, flush=True)


@pytest.mark.studio
@pytest.mark.timeout(300 + 30 * KILLS)
def test_loop_under_sigkill_loses_nothing(studio, tmp_path):
    _run(Plan(seed=SEED, kills=KILLS, strike_s=STRIKE_S, patience_s=PATIENCE_S), studio, tmp_path)


@pytest.mark.studio
@pytest.mark.timeout(300 + 30 * KILLS)
def test_loop_on_redis_and_postgres_under_sigkill_loses_nothing(studio, tmp_path):
    pytest.importorskip("psycopg")
    from ..services import PostgresServer, RedisServer, find_postgres, find_redis
    from .outsiders import outsiders

    if find_postgres() is None or find_redis() is None:
        pytest.skip("needs PostgreSQL and redis-server on this machine")
    with RedisServer() as redis, PostgresServer(durable=True) as postgres:
        database = postgres.create("torture")
        victims, watch = outsiders(redis, postgres, database, seed=SEED)
        variables = {"MASKLOOP_REDIS_URL": redis.url, "MASKLOOP_DATABASE_URL": postgres.url(database)}
        if IS_SHORT:
            variables["MASKLOOP_TRAIN_AFTER"] = "1000"
        parts = PARTS if IS_SHORT else PARTS + TRAINING_PARTS
        plan = Plan(
            seed=SEED,
            kills=len(parts) + len(victims) if IS_SHORT else KILLS,
            strike_s=STRIKE_S,
            victims=parts,
            patience_s=PATIENCE_S,
            variables=variables,
            outside=victims,
            watch=watch,
        )
        _run(plan, studio, tmp_path)


def _run(plan, studio, folder):
    with run_host() as slow:
        slow.delay_s = SLOW_S
        outcome = Run(plan, studio, folder / "home", slow=slow, say=_say).go()
    for line in report_lines(outcome):
        _say(line)
    (outcome.home.parent / "torture.json").write_text(outcome_to_json(outcome))
    assert outcome.verdict.lines() == []
