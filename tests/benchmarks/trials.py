"""Trials by simulation: how often alike versions are told apart, and how soon different ones are.

    python -m tests.benchmarks.trials --trials 2000

Each image has 1 to 8 regions; each region is kept with the version's probability, which varies from image to
image (beta distribution, as much as between easy and hard images).
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from maskloop.learning.evaluation.trial import TrialRule, Verdict, judge_trial

CONCENTRATION = 3.0  # of the beta distribution: how alike images are
BASE = 0.6  # share of regions kept with the old version
GAINS = (0.0, 0.05, 0.1, 0.2, -0.05, -0.1, -0.2)


def _shares(rng: np.random.Generator, kept: float, count: int) -> np.ndarray:
    of_image = rng.beta(CONCENTRATION * kept, CONCENTRATION * (1 - kept), count)
    regions = rng.integers(1, 9, count)
    return rng.binomial(regions, of_image) / regions


def main() -> None:
    """Print JSON: verdicts and images by gain."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    rule, rows = TrialRule(), []
    for gain in GAINS:
        states = []
        for seed in range(options.trials):
            rng = np.random.default_rng(seed)
            old, new = (_shares(rng, kept, rule.most_pairs) for kept in (BASE, BASE + gain))
            states.append(judge_trial(old.tolist(), new.tolist(), rule))
        decided = [one.pairs for one in states if one.verdict in (Verdict.BETTER, Verdict.WORSE)]
        rows.append(
            {
                "gain": gain,
                **{verdict.value: sum(one.verdict is verdict for one in states) for verdict in Verdict},
                "median_images_each": float(np.median(decided)) if decided else None,
                "images_each_95": float(np.quantile(decided, 0.95)) if decided else None,
            }
        )
    print(json.dumps({"trials": options.trials, "most_pairs": rule.most_pairs, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
