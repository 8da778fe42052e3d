import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanoq.lm import GPT, GPTConfig, bits_per_char, paired_difference, perplexity, window_losses
from nanoq.lm.evaluate import AgainstOriginal, row_losses, windows

TOKENS = torch.randint(11, (200,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return GPT(GPTConfig(vocab_size=11, context=16, layers=1, heads=2, width=16, dropout=0.5))


def normal(count, seed, mean=0.0, std=1.0):
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * std + mean


def test_windows_are_cut_end_to_end():
    assert windows(torch.arange(9), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]


@given(count=st.integers(0, 60), context=st.integers(1, 12))
def test_every_token_that_fits_a_window_is_predicted_once(count, context):
    tokens = torch.arange(count)
    if count <= context:
        with pytest.raises(ValueError, match=f"{count} tokens are too few for one window of {context} predictions"):
            windows(tokens, context)
        return
    targets = windows(tokens, context)[:, 1:].flatten().tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert count - context <= len(targets) + 1 <= count


def test_a_limit_spreads_windows_evenly_from_end_to_end():
    starts = windows(torch.arange(101), 10, limit=4)[:, 0].tolist()
    assert starts == [0, 30, 60, 90]


@given(count=st.integers(2, 300), limit=st.integers(1, 300))
def test_a_limit_never_takes_a_window_twice(count, limit):
    starts = windows(torch.arange(count + 1), 1, limit)[:, 0]
    assert len(starts.unique()) == len(starts) == min(limit, count)


def test_window_losses_equal_a_computation_by_hand(model):
    losses = window_losses(model, TOKENS, batch=5)
    model.eval()
    expected = []
    for start in range(0, 199 - 16 + 1, 16):
        probabilities = model(TOKENS[None, start : start + 16])[0].detach().double().softmax(-1)
        expected.append(sum(-math.log(probabilities[t, TOKENS[start + t + 1]]) for t in range(16)) / 16)
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_limit_takes_the_losses_of_those_windows(model):
    everything = window_losses(model, TOKENS)
    assert window_losses(model, TOKENS, limit=3).tolist() == pytest.approx(everything[[0, 6, 11]].tolist(), abs=1e-6)


def test_another_context_makes_other_windows(model):
    assert len(window_losses(model, TOKENS, context=8)) == 199 // 8


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_models_mode_as_it_was(model, training):
    model.train(training)
    window_losses(model, TOKENS)
    assert model.training is training and model.drop.training is training


@pytest.mark.parametrize("tokens", [torch.arange(30) % 11, torch.full((30,), 99)], ids=["whole", "stopped"])
def test_each_module_gets_its_own_mode_back_whatever_happened(model, tokens):
    model.train().blocks[0].eval()
    before = [module.training for module in model.modules()]
    try:
        window_losses(model, tokens)
    except ValueError:
        assert tokens.max() == 99
    assert [module.training for module in model.modules()] == before and len(set(before)) == 2


@pytest.mark.parametrize(("call", "message"), [
    (lambda model: window_losses(model, torch.arange(30) % 11, limit=0), "at least one window or picture is"),
    (lambda model: window_losses(model, torch.arange(30) % 11, batch=0), "in batches of at least 1, not .* of 0"),
    (lambda model: row_losses(model, torch.ones(3, 1).long()), "at least one of two tokens"),
    (lambda _: paired_difference(torch.rand(5), torch.rand(5), confidence=95), r"confidence must lie in \(0, 1\)"),
])
def test_numbers_out_of_range_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_comparison_forgets_a_run_that_was_interrupted(model):
    rows, watch = torch.arange(48).view(6, 8) % 11, AgainstOriginal(model)
    other = GPT(model.config, seed=9)
    row_losses(other, rows, 2, watch)
    wanted = watch.divergence()

    def stopped(*arguments):
        watch(*arguments)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        row_losses(GPT(model.config, seed=8), rows, 2, stopped)
    watch.begin()
    row_losses(other, rows, 2, watch)
    assert watch.divergence() == wanted


def test_evaluation_is_without_dropout(model):
    model.train()
    assert torch.equal(window_losses(model, TOKENS), window_losses(model, TOKENS))


def test_an_untrained_model_knows_nothing(model):
    assert perplexity(window_losses(model, TOKENS)) == pytest.approx(11, rel=0.02)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=20))
def test_perplexity_is_two_to_the_bits_per_character(values):
    losses = torch.tensor(values, dtype=torch.float64)
    assert perplexity(losses) == pytest.approx(2 ** bits_per_char(losses))
    assert math.log(perplexity(losses)) == pytest.approx(sum(values) / len(values))


def test_a_loss_beyond_all_numbers_has_an_infinite_perplexity():
    losses = torch.tensor([1.0, 1e6], dtype=torch.float64)
    assert perplexity(losses) == math.inf and math.isnan(perplexity(losses * math.nan))


def test_the_interval_of_a_normal_sample_is_that_of_the_textbook():
    a, b = normal(400, 1, mean=0.1, std=0.5), torch.zeros(400, dtype=torch.float64)
    difference = paired_difference(a, b)
    error = float(a.std() / 20)
    assert difference.mean == pytest.approx(float(a.mean()))
    assert difference.low == pytest.approx(difference.mean - 1.96 * error, abs=0.1 * error)
    assert difference.high == pytest.approx(difference.mean + 1.96 * error, abs=0.1 * error)


def test_the_interval_widens_with_the_confidence():
    a, b = normal(50, 1), normal(50, 2)
    narrow, wide = (paired_difference(a, b, confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_bootstrap_is_deterministic_for_a_seed():
    a, b = normal(50, 1), normal(50, 2)
    assert paired_difference(a, b, resamples=700) == paired_difference(a, b, resamples=700)
    assert paired_difference(a, b, resamples=700) != paired_difference(a, b, resamples=500)  # which are the first 500
    assert paired_difference(a, b, resamples=700) != paired_difference(a, b, resamples=700, seed=1)


def test_equal_losses_give_an_interval_of_zero():
    losses = normal(30, 1)
    difference = paired_difference(losses, losses)
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
    assert not difference.significant


def test_pairing_narrows_the_interval():
    hard = normal(200, 1, mean=2)  # what makes a window hard is common to both models
    a, b = hard + normal(200, 2, mean=0.05, std=0.02), hard
    paired, unpaired = paired_difference(a, b), paired_difference(a, b.roll(1))
    assert paired.significant and not unpaired.significant
    assert paired.high - paired.low < 0.1 * (unpaired.high - unpaired.low)


@pytest.mark.parametrize(("mean", "significant"), [(1, True), (-1, True), (0, False)])
def test_an_interval_is_significant_when_it_leaves_out_zero(mean, significant):
    losses = normal(50, 1, std=0.5)
    assert paired_difference(losses - losses.mean() + mean, torch.zeros(50)).significant is significant


@pytest.mark.parametrize(("a", "b"), [((5,), (6,)), ((1,), (1,)), ((2, 3), (2, 3))])
def test_losses_that_cannot_be_paired_are_an_error(a, b):
    with pytest.raises(ValueError, match="need two equal lists of window losses"):
        paired_difference(torch.zeros(a), torch.zeros(b))


class Table(torch.nn.Module):
    """Logits by the last token alone."""

    def __init__(self, seed):
        super().__init__()
        logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(seed))
        self.logits = torch.nn.Parameter(logits, requires_grad=False)

    def forward(self, tokens):
        return self.logits[tokens]


@pytest.mark.parametrize("kept", [10**9, 300, 0])
def test_divergences_are_those_of_a_plain_sum_whether_the_original_is_kept_or_run_again(kept, monkeypatch):
    monkeypatch.setattr(AgainstOriginal, "KEPT", kept)
    rows = torch.randint(7, (20, 6), generator=torch.Generator().manual_seed(0))
    original, watch = Table(0), AgainstOriginal(Table(0))
    for seed in (1, 2):
        model = Table(seed)
        row_losses(model, rows, batch=4, watch=watch)
        kl, same = [], 0
        for token in rows[:, :-1].flatten().tolist():
            p, q = original.logits[token].softmax(0), model.logits[token].softmax(0)
            kl.append(sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True)))
            same += int(p.argmax() == q.argmax())
        found = watch.divergence()
        assert found.mean == pytest.approx(sum(kl) / 100, rel=1e-4)
        assert found.median == pytest.approx(sorted(kl)[50], rel=1e-4)
        assert found.tail == pytest.approx(max(kl), rel=1e-4)
        assert found.top1 == same / 100
    assert watch.divergence() is None
