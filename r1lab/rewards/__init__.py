"""Rewards: what a completion earns. All have TRL's signature and drop into `trl.GRPOTrainer`."""

from r1lab.rewards.combine import RewardSet, later, random, reward_set, validate
from r1lab.rewards.languages import count_languages, language
from r1lab.rewards.parsing import Parsed, parse, text_of
from r1lab.rewards.programs import code, program_of, shared_sandbox, submit
from r1lab.rewards.rules import accuracy, correct, format

__all__ = [
    *("Parsed", "RewardSet", "accuracy", "code", "correct", "count_languages", "format", "language"),
    *("later", "parse", "program_of", "random", "reward_set", "shared_sandbox", "submit", "text_of"),
    "validate",
]
