"""Answering prompts: `SamplingParams` in, `Rollouts` out, the same for every sampler."""

from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.sampling.api import Rollouts, Sampler, SamplingParams, completion_text, end_ids
from r1lab.sampling.torch_sampler import TorchSampler
from r1lab.sampling.vllm_sampler import VLLMConfig, VLLMSampler

SamplerName = Literal["torch", "vllm"]


def build_sampler(
    name: SamplerName,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vllm: VLLMConfig = VLLMConfig(),
) -> Sampler:
    """Make the sampler of that name for this model. Raises InputError as its constructor does."""
    if name == "torch":
        return TorchSampler(model, tokenizer)
    return VLLMSampler(model, tokenizer, vllm)
