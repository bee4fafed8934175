"""A process reward model: does each step of a solution look good?

R1 tried one and dropped it (v1 section 4.2, v2 G.2): a step is hard to define, hard to label, and
the model that judges it gets hacked. In the signs puzzle the first two are solved exactly: a step
is one sign and its running total, and it is good while the target can still be reached, which
enumeration knows. So what goes wrong here goes wrong with perfect labels.
"""

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world import puzzles, training_problems
from r1lab.world.puzzles import ATTEMPT, MOVE, SIGNS
from r1lab.training.batching import microbatches, pad_rows
from r1lab.training.processes import Progress

# How the scores of a solution's steps become one reward.
AGGREGATES = {"sum": math.fsum, "mean": fmean, "min": min, "last": itemgetter(-1)}


class Step(NamedTuple):
    """One sign and its running total, an attempt's last one with the target restated after it.

    `start` and `end` are its places in the text, `signs` those of its attempt so far.
    """

    start: int
    end: int
    signs: str


def find_steps(text: str) -> list[Step]:
    """Find the steps of all attempts of a text, in order."""
    steps = []
    for attempt in ATTEMPT.finditer(text):
        offset, signs = attempt.start(2), ""
        for move in MOVE.finditer(attempt[2]):
            signs += move[1]
            steps.append(Step(offset + move.start(), offset + move.end(), signs))
        if attempt[3]:
            steps[-1] = steps[-1]._replace(end=attempt.end(3))
    return steps


def solving_signs(problem: Problem) -> str:
    """Return the signs of the puzzle's only solution."""
    return "".join(sign for sign in problem.solution if sign in "+-")


def step_labels(problem: Problem, steps: Sequence[Step]) -> list[bool]:
    """Tell exactly which steps can still hit the target: only those of the solution's own signs."""
    solution = solving_signs(problem)
    return [solution.startswith(step.signs) for step in steps]


def write_search(rng: random.Random, problem: Problem, most: int) -> str:
    """Write up to `most` different attempts in random order, right or not: what the PRM learns from."""
    chains = SIGNS.chains(problem.meta["numbers"])
    rng.shuffle(chains)
    return puzzles.write_search(rng, problem, chains[:most], solved=True)


@dataclass(frozen=True)
class PRMConfig:
    """How a PRM is trained: on so many puzzles, each a written search of up to `attempts` attempts.

    `mixture` is that of `training_problems`: the PRM never sees a held-out puzzle either.
    """

    mixture: dict[str, float] = field(
        default_factory=lambda: {f"signs/{level}": 1.0 for level in range(1, 6)}
    )
    problems: int = 1200
    attempts: int = 6
    learning_rate: float = 1e-3
    batch: int = 24  # puzzles
    seed: int = 0


class ProcessRewardModel(nn.Module):
    """The base's layers, copied, with one number as output, read after the last token of a step.

    It is 0 at first."""

    def __init__(self, model: PreTrainedModel, tokenizer):
        super().__init__()
        self.body, self.tokenizer = copy.deepcopy(model.get_decoder()), tokenizer
        self.head = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[Float[Tensor, " steps"]]:
        """Compute, for each (prompt, completion), one logit per step of the completion."""
        coded = self.tokenizer([" ".join(pair) for pair in pairs])
        pad = self.tokenizer.pad_token_id
        ids, _ = pad_rows(coded.input_ids, [[pad]] * len(pairs), pad)
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        values = self.head(hidden).squeeze(-1)  # [pair, token]
        judged = []
        for place, (prompt, completion) in enumerate(pairs):
            ends = (len(prompt) + step.end for step in find_steps(completion))
            judged.append(values[place, [coded.char_to_token(place, end) for end in ends]])
        return judged

    @torch.no_grad()
    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """Compute, for each (prompt, completion), its steps' probabilities of being good; [0.0] for none."""
        lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
        scores = [[0.0] for _ in pairs]
        rows = [row for row, (_, completion) in enumerate(pairs) if find_steps(completion)]
        for batch in microbatches(lengths, rows, 4096):
            for row, logits in zip(batch, self.logits([pairs[row] for row in batch])):
                scores[row] = logits.sigmoid().tolist()
        return scores

    def reward(self, how: str) -> Callable[..., list[float]]:
        """Make the PRM a reward in TRL's signature; `how` is a name in AGGREGATES."""

        def process_reward(prompts, completions, **columns):
            scores = self.scores(list(zip(prompts, completions)))
            return [AGGREGATES[how](steps) for steps in scores]

        process_reward.blind = True  # to the answer: nothing to validate
        return process_reward


def train_prm(
    model: PreTrainedModel, tokenizer, config: PRMConfig = PRMConfig()
) -> tuple[ProcessRewardModel, list[float]]:
    """Train a PRM from a base model; also return its loss (nats per step) on each batch."""
    prm, rng, losses = ProcessRewardModel(model, tokenizer), random.Random(config.seed), []
    optimizer = torch.optim.AdamW(prm.parameters(), lr=config.learning_rate, fused=True)
    batches = config.problems // config.batch
    with Progress(batches, "process reward model") as progress:
        for number in range(batches):
            pairs, labels = [], []
            asked = training_problems(config.seed, number, config.batch, config.mixture, {"en": 1.0})
            for problem in asked:
                text = write_search(rng, problem, config.attempts)
                pairs.append((apply_template("small", problem.prompt), text))
                labels += step_labels(problem, find_steps(text))
            logits = torch.cat(prm.logits(pairs))
            loss = binary_cross_entropy_with_logits(logits, torch.tensor(labels).to(logits))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(prm.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            progress.show(number + 1, loss=f"{losses[-1]:.3f}")
    return prm, losses
