"""Learning clicks beside a model: it costs predictions nothing, and survives an end in the middle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.integration.test_finetune import RECIPE, make_base, make_examples, weights

from maskloop.learning.training.click_simulation import click_on, deformed, next_given, start_of
from maskloop.learning.training.click_training import ClickTrainer
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingStoppedError


def _train(folder, base, *, control=None, **changes):
    job = FinetuneJob(
        base=base, examples=make_examples(), recipe=replace(RECIPE, **changes), output_dir=folder
    )
    return finetune(job, *([control] if control is not None else []))


@pytest.fixture(autouse=True)
def _always_better(monkeypatch, request):
    """A few steps teach nothing: what they give is kept all the same, but where the gain is tested."""
    if "gain" not in request.node.name:
        monkeypatch.setattr(ClickTrainer, "gain", 0.1)


def test_finetune_click_queries_without_gain_are_left_out(tmp_path):
    assert _train(tmp_path, make_base(), click_queries=True).click_queries is None


def _click_weights(checkpoint):
    return torch.cat([parameter.detach().flatten() for parameter in checkpoint.click_queries.parameters()])


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_finetune_with_clicks_changes_no_plain_weight(tmp_path, family):
    base = make_base(family)
    plain = _train(tmp_path / "plain", base)
    taught = _train(tmp_path / "taught", base, click_queries=True)
    again = _train(tmp_path / "again", taught, click_queries=True)
    assert torch.equal(weights(plain), weights(taught)), "bit for bit"
    assert plain.click_queries is None
    assert not taught.click_queries.training
    assert not torch.equal(_click_weights(taught), _click_weights(again)), "it goes on from the base's"


def test_finetune_with_clicks_goes_on_after_a_stop(tmp_path):
    base = make_base()
    whole = _train(tmp_path / "whole", base, click_queries=True)
    calls = iter(range(100))
    control = TrainingControl(should_stop=lambda: next(calls) == 4)
    with pytest.raises(TrainingStoppedError):
        _train(tmp_path / "halved", base, click_queries=True, control=control)
    halved = _train(tmp_path / "halved", base, click_queries=True)
    torch.testing.assert_close(_click_weights(whole), _click_weights(halved))


def test_simulated_clicks_lie_where_they_say():
    truth_hw = np.zeros((20, 30), dtype=np.bool_)
    truth_hw[4:12, 6:20] = True
    for seed in range(50):
        rng = np.random.default_rng(seed)
        given = start_of(truth_hw, rng)
        assert given.clicks or given.mask_hw is not None
        for click in given.clicks[:1]:
            assert truth_hw[int(click.y * 20), int(click.x * 30)]
        answer_hw = deformed(truth_hw, rng)
        later = next_given(given, truth_hw, answer_hw, rng)
        for click in later.clicks[len(given.clicks) :]:
            row, column = int(click.y * 20), int(click.x * 30)
            assert truth_hw[row, column] == click.is_positive
            assert answer_hw[row, column] != click.is_positive
    assert click_on(truth_hw, rng, is_positive=True, centred=True).y == pytest.approx(8 / 20, abs=0.05)
