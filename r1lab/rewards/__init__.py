"""Rewards: what a completion earns. All have TRL's signature and drop into `trl.GRPOTrainer`."""

from r1lab.rewards.combine import Later, RewardSet, random, validate
from r1lab.rewards.languages import count_languages, language
from r1lab.rewards.parsing import Parsed, parse, text_of
from r1lab.rewards.programs import code, program_of, shared_sandbox, submit
from r1lab.rewards.rules import accuracy, correct, format

__all__ = [
    *("Parsed", "RewardSet", "accuracy", "code", "correct", "count_languages", "format", "language"),
    *("Later", "parse", "program_of", "random", "shared_sandbox", "submit", "text_of"),
    "validate",
]
