"""A prompt read once for its group: the same log-probs and gradients, and no answer sees another."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.test_training import SMALL, TOKENIZER, learner, ragged_experience, task, tiny_policy, FakeWorld
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from r1lab.errors import InputError
from r1lab.models.policy import Policy, refuse_sharing
from r1lab.training.batching import own_groups, pad_rows
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

KINDS = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
SIZES = [(9, (4, 1, 30)), (1, (6,)), (17, (2, 2)), (3, (12, 1, 1, 5))]  # prompt, its completions


def model(kind: str, attention: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    config, build = KINDS[kind]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape = config(vocab_size=60, num_hidden_layers=2, attn_implementation=attention, **sizes, **settings)
    return build(shape).double()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(3, 60, (n,), generator=generator).tolist()  # noqa: E731
    asked = [(draw(prompt), [draw(n) for n in answers]) for prompt, answers in SIZES]
    pairs = [(prompt, answer) for prompt, answers in asked for answer in answers]
    return pad_rows(*zip(*pairs), 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_and_gradients_are_those_of_separate_rows(kind, attention):
    policy, (ids, mask), found = Policy(model(kind, attention)), rows(), []
    for shared in (False, True):
        policy.zero_grad()
        out = policy(ids, mask, 0.7, shared=shared)
        weights = torch.linspace(-1, 1, out.logp.numel()).view_as(out.logp)
        (out.logp * weights + out.entropy * weights.flip(0)).sum().backward()
        found.append((out.logp, out.entropy, *(p.grad.clone() for p in policy.parameters())))
    for separate, together in zip(*found, strict=True):
        assert (separate - together).abs().max() < 1e-6  # norms are float32 within


def test_no_answer_sees_another():
    policy, (ids, mask) = Policy(model("qwen2", "sdpa")), rows()
    before = policy(ids, mask, shared=True).logp
    changed = ids.clone()
    changed[0, 10] += 1  # in the first answer to the first prompt
    after = policy(changed, mask, shared=True).logp
    assert torch.equal(before[1:], after[1:]) and not torch.equal(before[0], after[0])


def groups(config) -> Experience:
    """Completions of very different lengths to one prompt a group."""
    experience = ragged_experience(config)
    asked = [row - row % config.group_size for row in range(len(experience.prompt_ids))]
    experience.prompt_ids = [experience.prompt_ids[row] for row in asked]
    experience.completion_ids[5], experience.old_logps[5] = [7], torch.tensor([-3.0])  # not an empty one
    return experience


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_learner_s_gradient_is_the_same(aggregation, processes):
    config = replace(SMALL, loss=replace(SMALL.loss, aggregation=aggregation), microbatch_tokens=150)
    experience = groups(config)

    def gradient(share: bool, rank: int, size: int) -> torch.Tensor:
        one = Learner(
            replace(config, share_prompts=share), task(), tiny_policy(), TOKENIZER, FakeWorld(rank, size)
        )
        one.policy.double()
        for row in one.modules.values():
            row.double()
        experience.ref_logps = one.reference_logps(experience)
        for rows in experience.minibatches(config.minibatches):
            one.add_loss(experience, rows)
        one.world.sum_gradients(one.policy)
        return torch.cat([p.grad.flatten() for p in one.policy.parameters()])

    alone = gradient(False, 0, 1)
    shared = sum(gradient(True, rank, processes) for rank in range(processes))
    assert alone.abs().max() > 0
    assert (alone - shared).abs().max() < 1e-5 * alone.abs().max()


@pytest.mark.parametrize("budget", [1, 40, 90, 10_000])
def test_every_row_is_worked_on_once_with_its_group_where_that_fits(budget):
    config = replace(SMALL, share_prompts=True, microbatch_tokens=budget)
    experience, world = groups(config), World(0, 1)
    every = list(range(len(experience.completion_ids)))
    batches = own_groups(config, world, experience, every)
    assert sorted(row for batch in batches for row in batch) == every
    for batch in batches:
        tokens = Counter()
        for row in batch:
            group = row // config.group_size
            tokens[group] = tokens[group] or len(experience.prompt_ids[row])
            tokens[group] += len(experience.completion_ids[row])
        assert len(batch) == 1 or len(tokens) * max(tokens.values()) <= budget


def test_a_run_samples_the_same_and_learns_the_same_to_rounding():
    plain, shared = (learner(replace(SMALL, share_prompts=share)) for share in (False, True))
    weights = []
    for one in (plain, shared):
        one.train()
        weights.append(torch.cat([p.detach().flatten() for p in one.policy.parameters()]))
    assert (weights[0] - weights[1]).abs().max() < 1e-5


@pytest.mark.parametrize(("kind", "attention", "settings"), [
    ("qwen2", "flex_attention", {}),
    ("qwen2", "sdpa", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
])  # fmt: skip
def test_attention_that_cannot_be_masked_so_is_refused(kind, attention, settings):
    with pytest.raises(InputError, match="switch share_prompts off"):
        refuse_sharing(model(kind, attention, **settings))


def test_packing_and_sharing_are_refused_together():
    with pytest.raises(InputError, match="switch one of them off"):
        replace(SMALL, pack=True, share_prompts=True).check(1)
