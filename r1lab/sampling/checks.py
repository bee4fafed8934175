"""Check a sampler's model, prompts and new weights before anything is touched."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.errors import InputError
from r1lab.sampling.api import LARGEST_KEY, SamplingParams


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends a text: the tokenizer's and those of the generation config.

    Raises InputError where neither names one.
    """
    found = set()
    for ids in (tokenizer.eos_token_id, model.generation_config.eos_token_id):
        found.update(ids if isinstance(ids, list) else [ids])
    found.discard(None)
    if not found:
        raise InputError("neither the tokenizer nor the model names an end token: set eos_token_id")
    return sorted(found)


def check_prompts(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    params: SamplingParams,
    stream_ids: Sequence[int] | None,
) -> tuple[list[list[int]], list[int]]:
    """Return prompts and stream ids as lists; a prompt's default stream is its position.

    Raises InputError for a prompt that the model cannot read or finish, or bad stream ids.
    """
    prompts = [list(prompt) for prompt in prompt_ids]
    streams = list(range(len(prompts)) if stream_ids is None else stream_ids)
    vocabulary = model.get_input_embeddings().num_embeddings
    limit = getattr(model.config, "max_position_embeddings", None) or float("inf")
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {i} is empty: give at least one token")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise InputError(
                f"prompt {i} has a token outside the model's vocabulary of "
                f"{vocabulary}: does the tokenizer fit the model?"
            )
        if len(prompt) + params.max_tokens > limit:
            raise InputError(
                f"prompt {i} has {len(prompt)} tokens; with max_tokens={params.max_tokens} it "
                f"passes the model's {limit} positions: shorten one of them"
            )
    if len(streams) != len(prompts) or not all(0 <= s <= LARGEST_KEY for s in streams):
        raise InputError(
            f"give one stream id from 0 to 2^64-1 per prompt: {len(streams)} ids, "
            f"{len(prompts)} prompts"
        )
    return prompts, streams


def check_weights(
    model: PreTrainedModel, named_parameters: Iterable[tuple[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the new weights by name, once they are known to be all of the model's.

    Of two tied parameters, either name will do.

    Raises InputError for an unknown or missing name or a wrong shape.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    new = dict(named_parameters)
    for name, value in new.items():
        if name not in own:
            raise InputError(f"load_weights: the model has no parameter {name!r}")
        if own[name].shape != value.shape:
            raise InputError(
                f"load_weights: {name!r} has shape {tuple(value.shape)}, "
                f"the model's has {tuple(own[name].shape)}"
            )
    given = {id(own[name]) for name in new}
    missing = [name for name, value in own.items() if id(value) not in given]
    if missing:
        raise InputError(f"load_weights: {len(missing)} parameters are missing: {missing[:3]}")
    return new
