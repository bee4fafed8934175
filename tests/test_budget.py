"""Budget forcing: against a loop that draws token by token, and what it must leave as it was."""

import pytest
import torch
from budget import OTHER_SEED, think_between
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from r1lab.errors import InputError
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sampling.torch_sampler import draw_uniforms
from tests.test_sampling import END, PROMPTS, small_model, word_tokenizer
from tests.test_training import TOKENIZER, tiny_policy

WAIT, CLOSE, ANSWER = 7, 11, 13
WORDS = {"wait": f"w{WAIT}", "ends": (f"w{CLOSE}", f"w{ANSWER}")}
KINDS = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


@pytest.fixture(scope="module", params=KINDS)
def sampler(request) -> TorchSampler:
    """Of a random model that likes to end its thinking."""
    model = small_model(*KINDS[request.param])
    with torch.no_grad():
        model.lm_head.weight[[CLOSE, ANSWER, END]] *= 3
    return TorchSampler(model, word_tokenizer())


@torch.no_grad()
def one_by_one(model, prompt, uniforms, most, temperature, least=0, stops=(END,)) -> list[int]:
    """Draw each token from the whole text so far, and replace it where it ends too early."""
    ids = []
    for step in range(most):
        logits = model(torch.tensor([prompt + ids])).logits[0, -1]
        if temperature == 0:
            token = int(logits.argmax())
            token = WAIT if step < least and token in stops else token
        else:
            chances = (logits / temperature).softmax(-1)
            if step < least:
                chances[WAIT] = chances[[WAIT, *stops]].sum()
                chances[list(stops)] = 0
            token = int(torch.searchsorted(chances.cumsum(-1), uniforms[step] * chances.sum(), right=True))
        ids.append(token)
        if token in stops:
            break
    return ids


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_it_equals_a_loop_that_replaces_each_early_end(sampler, temperature):
    params = SamplingParams(4, temperature, max_tokens=6, seed=3)
    found = think_between(5, 9, sampler, PROMPTS, params, **WORDS)
    for row, ids in enumerate(found):
        prompt, other = PROMPTS[row // 4], params.seed + OTHER_SEED
        uniforms = draw_uniforms(params.seed, [row // 4], 4, 0)[row % 4]
        thought = one_by_one(sampler.model, prompt, uniforms, 9, temperature, 5, (CLOSE, ANSWER, END))
        closed = [*(thought[:-1] if thought[-1] in (CLOSE, ANSWER, END) else thought), CLOSE]
        uniforms = draw_uniforms(other, [row], 1, 0)[0]
        assert ids == closed + one_by_one(sampler.model, prompt + closed, uniforms, 6, temperature)
        assert 5 <= ids.index(CLOSE) <= 9
    assert any(WAIT in ids[:5] for ids in found)


def test_without_a_least_it_only_closes_what_is_too_long(sampler):
    params = SamplingParams(4, max_tokens=3, seed=1)
    found = think_between(0, 4, sampler, PROMPTS, params, **WORDS)
    thinking = [ids.index(CLOSE) for ids in found]
    assert min(thinking) < 4 == max(thinking)
    assert all(len(ids) <= 4 + 1 + 3 for ids in found)


def test_the_sampler_is_as_it_was_also_after_an_error(sampler):
    params = SamplingParams(2, max_tokens=8, seed=2)
    before = sampler.generate(PROMPTS, params).completion_ids
    with pytest.raises(InputError, match="is empty"):
        think_between(2, 4, sampler, [[]], params, **WORDS)
    think_between(2, 4, sampler, PROMPTS, params, **WORDS)
    assert sampler.end_ids == [END] and sampler.generate(PROMPTS, params).completion_ids == before


def test_a_word_of_several_tokens_is_refused():
    tiny = TorchSampler(tiny_policy().model, TOKENIZER)
    params = SamplingParams(max_tokens=4, seed=0)
    with pytest.raises(InputError, match="one token"):
        think_between(2, 4, tiny, [[41]], params, "wait wait")
    assert 2 < len(think_between(2, 4, tiny, [[41]], params, "wait")[0]) <= 4 + 1 + 4
