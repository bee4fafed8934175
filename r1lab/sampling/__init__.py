"""Answering prompts: `SamplingParams` in, `Rollouts` out, the same for every sampler."""

from r1lab.sampling.api import Rollouts, Sampler, SamplingParams, stream_id
from r1lab.sampling.torch_sampler import TorchSampler

__all__ = ["Rollouts", "Sampler", "SamplingParams", "TorchSampler", "stream_id"]
