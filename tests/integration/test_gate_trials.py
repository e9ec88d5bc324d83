"""A handful of the benchmark's tries, of the kinds whose outcome is not in doubt."""

from tests.benchmarks.gate_trials import run


def test_gate_refuses_poison_and_accepts_a_true_gain():
    report = run(2, quiet=True)
    accepted = {
        row["group"]: (row["accepted"], row["tries"]) for row in report["summary"] if row["kind"] == "all"
    }
    assert accepted["poisoned"] == (0, 2)
    assert accepted["true gain"] == (2, 2)
