"""Bytes that many threads hold at once stay within a bound, and nothing waits for ever."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from maskloop.memory_budget import MemoryBudget, MemoryShares


def test_budget_many_threads_never_hold_more_than_the_bound():
    budget, lock = MemoryBudget(100), threading.Lock()
    held = most = 0

    def work(size):
        nonlocal held, most
        with budget.hold(size):
            with lock:
                held += size
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= size

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [10, 30, 60, 100] * 25))
    assert 60 < most <= 100
    assert budget.held_bytes == 0


def test_budget_larger_than_all_is_held_alone():
    budget = MemoryBudget(100)
    assert budget.acquire(1000)
    assert not budget.try_acquire(1)
    budget.release(1000)
    assert budget.held_bytes == 0


def test_budget_unwanted_work_stops_waiting_and_lets_others_through():
    budget = MemoryBudget(100)
    assert budget.acquire(100)
    assert not budget.acquire(50, is_over=lambda: True)
    budget.release(100)
    assert budget.try_acquire(100)


def test_budget_small_work_does_not_overtake_large_work_for_ever():
    budget = MemoryBudget(100)
    budget.acquire(60)
    large = threading.Thread(target=budget.acquire, args=(80,), daemon=True)
    large.start()
    while not budget._waiting:
        time.sleep(0.001)
    assert not budget.try_acquire(10)
    budget.release(60)
    large.join(30)
    assert budget.held_bytes == 80


def test_shares_together_stay_within_the_setting():
    shares = MemoryShares.of(600)
    budgets = (shares.trees, shares.files, shares.pixels)
    assert [part.total_bytes >> 20 for part in budgets] == [100, 150, 300]
    assert shares.body_bytes >> 20 == 50
