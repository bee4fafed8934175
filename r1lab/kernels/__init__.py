"""Fused log-probabilities: one public function that every trainer uses."""

from r1lab.kernels.logprob import linear_logprob
from r1lab.kernels.reference import LogProbs
