"""Reward models: a language model whose head gives one number, how good a text is (v2 section 3.1).

Stored as Hugging Face's sequence classification with one label, the usual form of a reward model.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from r1lab.errors import InputError
from r1lab.models.cpu_linear import speed_up_linear_layers
from r1lab.models.policy import load_model, read_part, tokenizer_class

ROWS = 64  # scored at once: short rows, whose activations stay small


class RewardModel(nn.Module):
    """Scores a reply to a prompt, read up to the end token that follows it.

    A score is a logit and has no zero of its own where only differences were learned; `average`
    is what the training set's replies score on average.
    """

    def __init__(self, model: PreTrainedModel, tokenizer):
        super().__init__()
        speed_up_linear_layers(model)
        self.model, self.tokenizer = model, tokenizer

    @property
    def average(self) -> float:
        return getattr(self.model.config, "average_score", 0.0)

    def forward(self, prompts: list[str], replies: list[str]) -> Float[Tensor, " rows"]:
        """The score (a logit) of each reply to its prompt."""
        end = self.tokenizer.eos_token_id
        rows = [
            torch.tensor([*prompt, *reply, end])
            for prompt, reply in zip(
                self.tokenizer(prompts).input_ids, self.tokenizer(replies).input_ids, strict=True
            )
        ]
        ids = nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=self.tokenizer.pad_token_id
        ).to(self.model.device)
        # Causal attention never looks right, so that padding there needs no attention mask.
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(row) - 1 for row in rows], device=ids.device)
        return self.model.score(hidden[torch.arange(len(rows)), last])[:, 0]

    def judge(self, prompts: list[str], replies: list[str]) -> list[float]:
        """Scores from 0 to 1: the probability of being safe, or of beating an average reply.

        Raises:
            InputError: a score is not a number.
        """
        scores: list[float] = []
        with torch.no_grad():
            for at in range(0, len(prompts), ROWS):
                logits = self(prompts[at : at + ROWS], replies[at : at + ROWS]) - self.average
                scores += logits.sigmoid().tolist()
        if any(score != score for score in scores):
            raise InputError(
                "the reward model's score is not a number; its weights are damaged: train it again."
            )
        return scores

    def save(self, folder: Path, average: float) -> None:
        """Write weights, configuration and tokenizer, with the average score to compare with."""
        self.model.config.average_score = average
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def new_reward_model(backbone: str | Path) -> RewardModel:
    """A language model's body with a fresh scalar head, drawn from torch's generator."""
    source, tokenizer = load_model(backbone)
    source.config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(source.config)
    setattr(model, model.base_model_prefix, source.base_model)
    return RewardModel(model, tokenizer)


def load_reward_model(folder: str | Path) -> RewardModel:
    """A stored reward model, ready to judge.

    Raises:
        InputError: there is none, it cannot be read, or its weights are not numbers.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no reward model there; train one, or name its folder.")
    source = {"pretrained_model_name_or_path": folder}
    dtype = {"dtype": torch.float32}
    model = read_part(AutoModelForSequenceClassification, folder, source | dtype)
    tokenizer = read_part(tokenizer_class(folder), folder, source)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"{folder}: the reward model holds weights that are not numbers; delete that "
            "folder, and the command that trained it makes it again."
        )
    return RewardModel(model, tokenizer).eval().requires_grad_(False)
