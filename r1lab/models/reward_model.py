"""Reward models: a language model whose head gives one number, how good a text is (v2 section 3.1).

Stored as Hugging Face's sequence classification with one label, the usual form of a reward model.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from r1lab.errors import InputError
from r1lab.models.cpu_linear import speed_up_linear_layers
from r1lab.models.policy import load_model, save_model

ROWS = 64  # scored at once: short rows, whose activations stay small


class RewardModel(nn.Module):
    """Scores a reply to a prompt, read up to the end token that follows it.

    A score is a logit and has no zero of its own where only differences were learned; the
    configuration's `average_score` is what the training set's replies score on average.
    """

    def __init__(self, model: PreTrainedModel, tokenizer):
        super().__init__()
        speed_up_linear_layers(model)
        self.model, self.tokenizer = model, tokenizer

    def forward(self, prompts: Sequence[str], replies: Sequence[str]) -> Float[Tensor, " rows"]:
        """The score (a logit) of each reply to its prompt."""
        tokenizer, device = self.tokenizer, self.model.device
        pairs = zip(tokenizer(prompts).input_ids, tokenizer(replies).input_ids, strict=True)
        end = tokenizer.eos_token_id
        rows = [torch.tensor([*prompt, *reply, end], device=device) for prompt, reply in pairs]
        ids = nn.utils.rnn.pad_sequence(rows, True, tokenizer.pad_token_id)
        # Causal attention never looks right, so that padding there needs no attention mask.
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = [len(row) - 1 for row in rows]
        return self.model.score(hidden[range(len(rows)), last])[:, 0]

    @torch.no_grad()
    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> list[float]:
        """Scores from 0 to 1: the probability of being safe, or of beating an average reply."""
        scores: list[float] = []
        for at in range(0, len(prompts), ROWS):
            logits = self(prompts[at : at + ROWS], replies[at : at + ROWS])
            scores += (logits - self.model.config.average_score).sigmoid().tolist()
        return scores

    def save(self, folder: Path, average: float):
        """Write weights, configuration and tokenizer, with the average score to compare with."""
        self.model.config.average_score = average
        save_model(self.model, self.tokenizer, folder)


def new_reward_model(backbone: str | Path) -> RewardModel:
    """A language model's body with a fresh scalar head, drawn from torch's generator."""
    source, tokenizer = load_model(backbone)
    source.config.num_labels, source.config.average_score = 1, 0.0
    model = AutoModelForSequenceClassification.from_config(source.config)
    setattr(model, model.base_model_prefix, source.base_model)
    return RewardModel(model, tokenizer)


def load_reward_model(folder: str | Path) -> RewardModel:
    """A stored reward model, ready to judge.

    Raises:
        InputError: there is none, it cannot be read, or its weights are not numbers.
    """
    model, tokenizer = load_model(folder, kind=AutoModelForSequenceClassification)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"{folder}: the reward model holds weights that are not numbers; delete that "
            "folder, and the command that trained it makes it again."
        )
    return RewardModel(model, tokenizer).eval().requires_grad_(False)
