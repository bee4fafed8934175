"""The contract of every sampler: `SamplingParams` in, `Rollouts` out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """How to sample, under vLLM's names.

    `temperature` 0 is greedy decoding; `top_p` 1 and `top_k` 0 switch those filters off. `seed` and
    the stream id of a prompt together decide its samples. Raises InputError for a value outside
    its range.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self):
        for name, is_valid, wanted in (
            ("n", self.n >= 1, "at least 1 completion per prompt"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or a positive number"),
            ("top_p", 0 < self.top_p <= 1, "a number in (0, 1]; 1 is off"),
            ("top_k", self.top_k >= 0, "0 (off) or a positive number"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**64, "a number from 0 to 2^64-1"),
        ):
            if not is_valid:
                raise InputError(f"{name}={getattr(self, name)}: give {wanted}")


Finish = Literal["stop", "length"]


# What ends a turn in other models' chat templates; a base's own end token may be another.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>")


def completion_text(ids: Sequence[int], finish: Finish, tokenizer) -> str:
    """Decode a completion without the end token that stopped it, whichever of the model's it is.

    Tags such as <think> are ordinary text.
    """
    return tokenizer.decode(ids[:-1] if finish == "stop" else ids)


@dataclass(frozen=True)
class Rollouts:
    """n completions for each of B prompts, as B*n entries in each list, group after group.

    Entry i answers prompt i // n. Nothing is padded. `completion_ids` includes the end token when
    `finish` is "stop". `logprobs` (nats, float32) are those of the distribution really sampled
    from; `log_kept` (nats, float32) is the log of the probability that top-k and top-p left, 0
    where they are off, NaN where the sampler does not report it. At temperature 0 the distribution
    has all its mass on the likeliest token, so `logprobs` is 0 and `log_kept` the token's
    log-probability at temperature 1.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    logprobs: list[Float[Tensor, " _"]]
    log_kept: list[Float[Tensor, " _"]]
    finish: list[Finish]
    weights_version: int

    def texts(self, tokenizer) -> list[str]:
        """Decode all completions: see `completion_text`."""
        ended = zip(self.completion_ids, self.finish)
        return [completion_text(ids, finish, tokenizer) for ids, finish in ended]

    @property
    def scorer_logps(self) -> list[Float[Tensor, " _"]]:
        """What a scorer must find: log_softmax(logits / temperature) at the sampled tokens.

        Raises InputError where the sampler did not report `log_kept`, which is then NaN.
        """
        if any(values.isnan().any() for values in self.log_kept):
            raise InputError(
                "this sampler does not report what top-p or top-k left of the mass, so its samples "
                "cannot be trained on: set top_p=1 and top_k=0."
            )
        return [sampled + log_kept for sampled, log_kept in zip(self.logprobs, self.log_kept)]


class Sampler:
    """Answers prompts with the weights it was last given; `weights_version` counts how often.

    A sampler defines `_sample`, which returns the columns of its Rollouts from `completion_ids` to
    `finish`, and `_replace_weights`; it checks its input here. Raises InputError for a model without an
    end token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model, self.tokenizer = model, tokenizer
        self.end_ids = end_ids(model, tokenizer)
        self.weights_version = 0

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        stream_ids: Sequence[int] | None = None,
        **watching,
    ) -> Rollouts:
        """Sample `params.n` completions of each prompt.

        Completion j of a prompt depends on (params.seed, the prompt's stream id, j) alone, never on
        its neighbours; a stream id is a number from 0 to 2^64-1, by default the prompt's position.
        A sampler that has the keyword `on_done` calls on_done(place in the Rollouts, token ids,
        finish) for each completion as soon as it ends, while others are still drawn, so that
        grading can begin.

        Raises InputError for an empty prompt, one that leaves no room for `max_tokens`, and a model
        whose logits are not finite.
        """
        prompts = [list(prompt) for prompt in prompt_ids]
        streams = list(range(len(prompts)) if stream_ids is None else stream_ids)
        limit = getattr(self.model.config, "max_position_embeddings", None) or math.inf
        for i, prompt in enumerate(prompts):
            if not prompt:
                raise InputError(f"prompt {i} is empty: give at least one token")
            if len(prompt) + params.max_tokens > limit:
                raise InputError(
                    f"prompt {i} has {len(prompt)} tokens; with max_tokens={params.max_tokens} it "
                    f"passes the model's {limit} positions: shorten one of them"
                )
        asked = [prompt for prompt in prompts for _ in range(params.n)]
        drawn = self._sample(prompts, params, streams, **watching)
        rollouts = Rollouts(asked, *drawn, self.weights_version)
        said = rollouts.logprobs if params.temperature else rollouts.log_kept
        if said and not torch.cat(said).isfinite().all():
            raise InputError("the model's logits are not finite: its weights are damaged")
        return rollouts

    def load_weights(self, named_parameters: Iterable[tuple[str, Tensor]]):
        """Replace all weights; of two tied parameters, either name will do.

        Raises InputError, and changes nothing, for an unknown or missing name or a wrong shape.
        """
        ours, new = dict(self.model.named_parameters(remove_duplicate=False)), dict(named_parameters)
        wrong = [name for name in new if name not in ours or ours[name].shape != new[name].shape]
        given = {id(ours.get(name)) for name in new}
        missing = [name for name, value in ours.items() if id(value) not in given]
        if wrong or missing:
            raise InputError(
                f"load_weights: {len(missing)} parameters are missing {missing[:3]}, and {len(wrong)} "
                f"have a name or shape that is not the model's {wrong[:3]}"
            )
        self._replace_weights(new)
        self.weights_version += 1


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends a text: the tokenizer's, those of the generation config and those
    that end a turn in the chat template.

    Raises InputError where neither names one.
    """
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
    template, known = str(tokenizer.chat_template or ""), tokenizer.get_vocab()
    ends |= {known[end] for end in TURN_ENDS if end in template and end in known}
    if not ends:
        raise InputError("neither the tokenizer nor the model names an end token: set eos_token_id")
    return sorted(ends)
