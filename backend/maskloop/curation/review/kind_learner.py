"""From samples with and without errors to the probability of each kind of error, as frequent as it is here.

The samples without an error that was put in are a project's own annotations, with errors of their own. So a
region that looks as much like an error as errors do that were put in says how frequent the kind is: where
half of all that look so were there before, half of these are errors. What looks wrong then counts less as
clean, and the classifiers learn again.

Source: Elkan and Noto 2008, Learning classifiers from only positive and unlabeled data; its estimate of the
share, from a high quantile instead of the mean. It says little where errors are not well apart from the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.error_classifier import CLEAN, LESSON_WEIGHT, fit, probabilities

__all__ = ["KindLearner", "Kinds"]

Kinds = dict[str, NDArray[np.float64]]

ROUNDS = 3  # of learning; two where shares are given
SURE = 0.95  # quantile of the errors put in: what looks so is an error
LEAST = 0.02  # probability that a classifier of few trees can tell from none
APART = (0.8, 0.95)  # area under the ROC curve from which on a share is known a little, and well
MOST = 0.8  # share of a kind


class KindLearner:
    """Classifiers of one table of samples, each of which has not seen one fold of the images."""

    def __init__(
        self,
        values_nf: NDArray[np.float64],
        kind_n: NDArray[np.str_],
        fold_n: NDArray[np.int64],
        *,
        clean_weight_n: NDArray[np.float64],
        taught: tuple[NDArray[np.float64], NDArray[np.str_]],
        expected: float,
        estimated: bool,
        seed: int,
    ) -> None:
        """Learn.

        Args:
            values_nf: float64 (N, F).
            kind_n: (N,): CLEAN or the kind that was put in.
            fold_n: (N,): fold of the sample's image.
            clean_weight_n: (N,): 0..1, how far a clean sample counts.
            taught: numbers and kinds that reviewers decided on.
            expected: share of each kind in a project of which nothing is known, 0..1.
            estimated: whether shares are estimated where errors are well apart from the rest; else all are
                as expected.
            seed: of the trees.
        """
        self._values_nf, self._kind_n, self._fold_n = values_nf, kind_n, fold_n
        self._taught, self._seed = taught, seed
        self._expected, self._estimated = min(expected, MOST), estimated
        self._names = sorted(set(kind_n.tolist()))
        self._shares: dict[str, float] = {}
        self._models: dict[int, Any] = {}
        enough = CLEAN in self._names and len(self._names) > 1
        weight_n = np.where(kind_n == CLEAN, clean_weight_n, 1.0)
        rounds = ROUNDS if estimated else 2
        for number in range(rounds if enough else 0):
            if number:
                weight_n = weight_n * np.where(kind_n == CLEAN, self._clean(), 1.0)
            self._learn(weight_n)

    def kinds(self, fold: int, values_nf: NDArray[np.float64]) -> Kinds | None:
        """Return kind -> float64 (N,), 0..1, CLEAN among them, by a classifier that has not seen a fold.

        None where the other folds have too few samples to learn from: without an error, or with errors only.
        """
        if self._models.get(fold) is None:
            return None
        ratios = self._ratios(fold, values_nf)
        odds = {kind: self._shares[kind] * ratio for kind, ratio in ratios.items()}
        total_n = np.sum(list(odds.values()), axis=0)
        return {kind: values / (1 + total_n) for kind, values in odds.items()} | {CLEAN: 1 / (1 + total_n)}

    def _learn(self, weight_n: NDArray[np.float64]) -> None:
        weight_n = self._balanced(weight_n)
        values_lf, kind_l = self._taught
        for fold in np.unique(self._fold_n).tolist():
            chosen_n = (self._fold_n != fold) & (weight_n > 0)
            self._models[fold] = fit(
                np.concatenate([self._values_nf[chosen_n], values_lf]),
                np.concatenate([self._kind_n[chosen_n], kind_l]),
                np.concatenate([weight_n[chosen_n], np.full(len(kind_l), LESSON_WEIGHT)]),
                self._seed,
            )
        for kind, ratio_n in self._sample_ratios().items():
            self._shares[kind] = self._share(kind, ratio_n, weight_n) if self._estimated else self._expected

    def _share(self, kind: str, ratio_n: NDArray[np.float64], weight_n: NDArray[np.float64]) -> float:
        of_kind_n, is_clean_n = self._kind_n == kind, (self._kind_n == CLEAN) & (weight_n > 0)
        seen = float(np.quantile(ratio_n[of_kind_n], SURE))
        share = min(MOST, 1.0 / max(seen, 1.0))
        apart = _area(ratio_n[of_kind_n], ratio_n[is_clean_n], weight_n[is_clean_n])
        apart = (apart - share / 2) / (1 - share)  # errors that were there before look like errors
        trust = float(np.clip((apart - APART[0]) / (APART[1] - APART[0]), 0.0, 1.0))
        return float(share**trust * self._expected ** (1 - trust))

    def _balanced(self, weight_n: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights of which clean has one half and the kinds equal parts of the other; sum N."""
        balanced_n = weight_n.copy()
        for kind in self._names:
            chosen_n = self._kind_n == kind
            total = float(weight_n[chosen_n].sum())
            balanced_n[chosen_n] *= self._part(kind) * len(weight_n) / max(total, 1e-9)
        return balanced_n

    def _part(self, kind: str) -> float:
        return 0.5 if kind == CLEAN else 0.5 / (len(self._names) - 1)

    def _ratios(self, fold: int, values_nf: NDArray[np.float64]) -> Kinds:
        """Return kind -> how many times as frequent such numbers are among its errors as among the rest."""
        found = probabilities(self._models[fold], values_nf)
        none_n = np.zeros(len(values_nf))
        clean_n = (found.get(CLEAN, none_n) + LEAST) / self._part(CLEAN)
        return {
            kind: found.get(kind, none_n) / self._part(kind) / clean_n
            for kind in self._names
            if kind != CLEAN
        }

    def _sample_ratios(self) -> Kinds:
        found: Kinds = {kind: np.zeros(len(self._kind_n)) for kind in self._names if kind != CLEAN}
        for fold in self._models:
            chosen_n = self._fold_n == fold
            for kind, ratio_n in self._ratios(fold, self._values_nf[chosen_n]).items():
                found[kind][chosen_n] = ratio_n
        return found

    def _clean(self) -> NDArray[np.float64]:
        """Return (N,): how far each sample is clean that had no error put in, 0..1."""
        errors = [
            self._shares[kind] * np.minimum(ratio_n, 1 / self._shares[kind])
            for kind, ratio_n in self._sample_ratios().items()
        ]
        return np.asarray(np.clip(1 - np.sum(errors, axis=0), 0.0, 1.0), dtype=np.float64)


def _area(error_n: NDArray[np.float64], clean_m: NDArray[np.float64], weight_m: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve of errors against weighted clean samples; .5 without either."""
    if not len(error_n) or not weight_m.sum() > 0:
        return 0.5
    order = np.argsort(clean_m, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weight_m[order])]) / weight_m.sum()
    lower, upper = (np.searchsorted(clean_m[order], error_n, side=side) for side in ("left", "right"))
    return float((below[lower] + below[upper]).mean() / 2)
