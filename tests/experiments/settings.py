"""The settings of the ledger's runs, in plain names and numbers, and what the package makes of them.

A result's key holds these, not the package's own dataclasses: a field that moves there or gets
another name makes nothing stale. What has another effect than before does, by its version.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from r1lab.models.lora import LoRA
from r1lab.objective import LossConfig
from r1lab.stages.samples import HarvestConfig
from r1lab.stages.rl_stages import RLStage
from r1lab.training.config import GRPOConfig
from r1lab.training.sft import SFTConfig
from r1lab.world.small_world import SmallWorld
from descendants import RLOO, DynamicSampling, SkipSilent, cispo, rloo
from tests.experiments.ppo import PPOLearner

Settings = Mapping[str, Any]

# R1-Zero in the small world: `make zero`. Arms name what they change.
GROUP: dict[str, Any] = {"advantage": "group", "gae_lambda": 1.0, "critic_learning_rate": 1e-3}
ZERO: dict[str, Any] = {
    **GROUP,
    "model": "data/base",
    "mixture": {"signs/1": 0.5, "signs/2": 1.0, "signs/3": 3.0, "signs/4": 4.0, "signs/5": 2.0},
    "lang_weights": {"en": 0.6, "zh": 0.4},
    "template": "small",
    "arm": "true",
    "accuracy_weight": 1.0,
    "format_weight": 0.1,
    "rollouts": 44,
    "questions": 24,
    "group_size": 16,
    "minibatches": 4,
    "learning_rate": 1e-4,
    "warmup_steps": 8,
    "max_grad_norm": 1.0,
    "temperature": 1.0,
    "divide_by_std": True,
    "loss": {"clip_low": 0.2, "clip_high": 0.28, "beta": 0.001, "aggregation": "token"},
    "caps": [[0, 320], [80, 448]],
    "reference_every": 40,
    "microbatch_tokens": 1024,
    "test": "data/test_signs.jsonl",
    "eval_every": 5,
    "eval_samples": 16,
    "eval_problems": 16,
    "final_samples": 16,
}
SFT: dict[str, Any] = {
    "epochs": 2, "steps": 0, "tokens_per_step": 8192, "learning_rate": 1e-3, "final_share": 0.1,
    "warmup_steps": 5, "weight_decay": 0.0, "learn_prompts": False, "template": "small",
    "microbatch_tokens": 1024,
}  # fmt: skip
# What the arms of GRPO's descendants give to `grpo`, by the name of their `method`.
METHODS: dict[str, dict[str, Any]] = {
    "dynamic sampling": {"learner": DynamicSampling},
    "cispo": {"loss": cispo},
    "rloo": {"learner": RLOO, "loss": rloo},
    "skip silent": {"learner": SkipSilent},
}
# The chain's, by stage: `stages.pipeline.R1Config`, of which a test finds each number again.
CHAIN: dict[str, Any] = json.loads((Path(__file__).parent / "chain.json").read_text("utf-8"))


def rl_stage(settings: Settings) -> RLStage:
    """What a run by reinforcement learning asks and pays, and how it learns; not its model."""
    world_names = {field.name for field in fields(SmallWorld)}
    world = {name: value for name, value in settings.items() if name in world_names}
    others = {"model", "method", *GROUP, *world_names}
    rl = {name: value for name, value in settings.items() if name not in others}
    rl["loss"] = LossConfig(**rl["loss"])
    if "lora" in rl:
        rl["lora"] = LoRA(**rl["lora"])
    rl["caps"] = tuple((step, tokens) for step, tokens in rl["caps"])
    return RLStage(SmallWorld(**world), GRPOConfig.preset("cpu", **rl))


def way_to_learn(settings: Settings) -> dict[str, Any]:
    """What `grpo` is given beside the settings: a critic's learner for PPO, or a method's own."""
    if settings["advantage"] == "gae":
        critic = {name: settings[name] for name in GROUP if name != "advantage"}
        return {"learner": partial(PPOLearner, **critic)}
    return METHODS[settings["method"]] if "method" in settings else {}


def sft_config(settings: Settings, **changes: Any) -> SFTConfig:
    """The package's settings of fine-tuning."""
    return SFTConfig(**{**settings, **changes})


def harvest_config(settings: Settings, **changes: Any) -> HarvestConfig:
    """The package's settings of drawing samples to learn from."""
    return HarvestConfig(**{**settings, **changes, "filters": tuple(settings["filters"])})


def leaves(settings: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every name with its value, wherever it is; of lists the whole, in JSON's form."""
    if hasattr(settings, "__dataclass_fields__"):
        settings = {field.name: getattr(settings, field.name) for field in fields(settings)}
    found = [(name, json.loads(json.dumps(settings, default=vars)))]
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            found += leaves(value, key)
    return found
