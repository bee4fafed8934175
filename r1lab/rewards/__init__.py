"""Rewards: what a completion earns. All have TRL's signature and drop into `trl.GRPOTrainer`."""

from r1lab.rewards.combine import RewardSet, random, validate
from r1lab.rewards.languages import count_languages, language
from r1lab.rewards.parsing import Parsed, parse, text_of
from r1lab.rewards.rules import accuracy, code, correct, format, program_of, shared_sandbox, submit
