"""Fused log-probabilities: one public function that every trainer uses."""

from r1lab.kernels.logprob import LogProbs, linear_logprob, logprob_from_logits

__all__ = ["LogProbs", "linear_logprob", "logprob_from_logits"]
