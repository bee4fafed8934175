"""Packing: every row once, within the budget, few bins; packed rows score as padded ones do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab.models.policy import Policy
from r1lab.world.bases import build_model
from r1lab.training.batching import pad_rows
from r1lab.training.batching import best_fit

VOCABULARY = 60


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60), budget=st.integers(20, 200))
def test_every_row_is_packed_once_within_the_budget(lengths, budget):
    bins = best_fit(lengths, range(len(lengths)), budget)
    assert sorted(row for one in bins for row in one) == list(range(len(lengths)))
    for one in bins:
        assert sum(lengths[row] for row in one) <= budget or len(one) == 1


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_two_bins_never_fit_into_one(lengths):
    bins = best_fit(lengths, range(len(lengths)), 50)
    filled = sorted(sum(lengths[row] for row in one) for one in bins)
    assert len(bins) == 1 or filled[0] + filled[1] > 50


def test_a_row_goes_where_least_is_left_over():
    lengths = [7, 6, 3, 4]  # into bins of 10: first fit would put the 3 beside the 6 where 7+3 fits
    assert best_fit(lengths, [0, 1, 2, 3], 10) == [[0, 2], [1, 3]]
    assert best_fit([5, 8, 2], [0, 1, 2], 10) == [[1, 2], [0]]


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    return Policy(build_model("base", VOCABULARY))


def ragged_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and completions of many lengths; one completion is empty, one prompt a token."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(9, 4), (1, 1), (3, 40), (12, 0), (2, 7)]
    draw = lambda n: torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    return pad_rows([draw(p) for p, _ in sizes], [draw(c) for _, c in sizes], 0)


def test_packed_rows_score_as_padded_ones(policy):
    ids, mask = ragged_rows()
    padded, packed = (policy(ids, mask, 0.7, packed=packed) for packed in (False, True))
    assert padded.logp.abs().max() > 1
    assert (padded.logp - packed.logp).abs().max() < 1e-5
    assert (padded.entropy - packed.entropy).abs().max() < 1e-5


def test_packed_rows_give_the_same_gradient(policy):
    ids, mask = ragged_rows()
    gradients = []
    for packed in (False, True):
        policy.zero_grad()
        (policy(ids, mask, packed=packed).logp * torch.linspace(0, 1, 40)).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    scale = gradients[0].abs().max()
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * scale


def test_a_document_never_sees_its_neighbours(policy):
    """Other tokens in the first row of a line change nothing in the second."""
    ids, mask = ragged_rows()
    before = policy(ids, mask, packed=True).logp
    changed = ids.clone()
    changed[0, 2] = ids[0, 2] + 1
    after = policy(changed, mask, packed=True).logp
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


def test_rows_without_a_completion_are_no_obstacle(policy):
    ids = torch.tensor([[5, 6], [7, 8]])
    out = policy(ids, torch.zeros_like(ids, dtype=torch.bool), packed=True)
    assert out.logp.shape == (2, 0)
