"""The sampler's pure parts: parameters, filters, random numbers and the choice of a token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from r1lab.errors import InputError
from r1lab.sampling import SamplingParams
from r1lab.sampling.torch_sampler import choose, draw_uniforms


@pytest.mark.parametrize("bad", [
    {"n": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")},
    {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"max_tokens": 0}, {"seed": -1}, {"seed": 2**64},
])  # fmt: skip
def test_bad_params(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        SamplingParams(**bad)


seeds = st.integers(0, 2**64 - 1)


@given(seed=seeds, streams=st.lists(seeds, min_size=1, max_size=4), n=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_random_numbers_are_keyed_by_stream_and_sample(seed, streams, n):
    drawn = draw_uniforms(seed, streams, n, block=1)
    assert drawn.shape == (len(streams) * n, 256) and drawn.min() >= 0 and drawn.max() < 1
    for i, stream in enumerate(streams):
        fewer = draw_uniforms(seed, [stream], 1, block=1)
        assert torch.equal(drawn[i * n], fewer[0])
    assert not torch.equal(drawn, draw_uniforms(seed, streams, n, block=2))


def test_random_numbers_stay_the_same_over_releases():
    """Stored runs can be repeated only as long as these numbers hold."""
    expected = np.random.Generator(
        np.random.Philox(key=np.array([7, 3], np.uint64), counter=[0, 0, 2, 0])
    ).random(256, dtype=np.float32)
    drawn = draw_uniforms(7, [3], 1, block=2)[0].numpy()
    assert np.array_equal(drawn, expected)
    assert drawn[:3] == pytest.approx([0.83199966, 0.029600263, 0.6679504], abs=1e-7)


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12),
    uniform=st.floats(0, 1 - 2**-24, width=32),
    top_k=st.integers(0, 3),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
)
@settings(deadline=None)
def test_choice_inverts_the_cdf(logits, uniform, top_k, top_p):
    row = torch.tensor([logits])
    params = SamplingParams(top_k=top_k, top_p=top_p)
    (token,), (logprob,), (log_kept,) = choose(row, params, torch.tensor([uniform]))
    kept = row.log_softmax(-1)
    kept = TopKLogitsWarper(top_k)(None, kept) if top_k else kept
    kept = TopPLogitsWarper(top_p)(None, kept) if top_p < 1 else kept
    kept = kept.double().softmax(-1)[0]
    below, above = kept[:token].sum().item(), kept[: token + 1].sum().item()
    assert kept[token] > 0
    assert below - 1e-6 <= uniform <= above + 1e-6
    assert logprob.item() == pytest.approx(kept[token].log().item(), abs=1e-5)
    scorer = row.log_softmax(-1)[0, token].item()
    assert (logprob + log_kept).item() == pytest.approx(scorer, abs=1e-5)


def test_impossible_tokens_are_never_drawn():
    """Not at either end of the unit interval, and not for the largest uniform number there is."""
    row = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.1, 0.2, -torch.inf]]).repeat(3, 1)
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-24])
    tokens, _, _ = choose(row, SamplingParams(), uniforms)
    assert tokens.tolist() == [1, 3, 4]
