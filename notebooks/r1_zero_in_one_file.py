"""R1-Zero in one file: a small model learns to search, and nobody shows it how.

    python notebooks/r1_zero_in_one_file.py

A puzzle gives numbers and a target; every number after the first gets a plus or a minus. The base
model has read how people try signs, but it is right by luck. Here it samples a group of answers to
each puzzle. A rule gives each answer a reward. An answer's advantage says how much better than its
group it was paid. The loss falls as answers of high advantage become likely, and its gradient says
how to change the weights. That is all of GRPO.

The file needs torch, transformers and the base model in data/base. The package r1lab does the same
for any task and model, in several processes, with exact resume and a report. A test holds that its
first update equals this file's.
"""

import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

BASE = Path(__file__).resolve().parents[1] / "data" / "base"
NUMBERS = 4  # in a puzzle: 2 * 2 * 2 ways to choose the signs, one of them right
HELD_OUT = 64  # puzzles that training never asks
QUESTIONS, GROUP = 16, 16  # a rollout asks this many puzzles, and samples this many answers to each
MINIBATCHES = 4  # updates after each rollout
ROLLOUTS = 24
MAX_TOKENS = 128  # of an answer; a longer one is cut off, and is wrong
LEARNING_RATE = 3e-4
CLIP_LOW, CLIP_HIGH = 0.2, 0.28  # how far one update may move the probability of a token
FORMAT_WEIGHT = 0.1  # the reward for tidy tags; a right answer earns 1.0

class Puzzle(NamedTuple):
    prompt: str  # "User: make 13 from 9,5,1 Assistant:"
    solution: str  # "9+5-1"


def draw_puzzles(rng: random.Random, count: int, avoid: list[Puzzle]) -> list[Puzzle]:
    """Draw numbers and signs; again where other signs would reach the same target."""
    puzzles = []
    while len(puzzles) < count:
        numbers = [rng.randint(1, 9) for _ in range(NUMBERS)]
        totals = {str(numbers[0]): numbers[0]}  # expression -> its value, for all choices of signs
        for number in numbers[1:]:
            plus = {f"{text}+{number}": total + number for text, total in totals.items()}
            minus = {f"{text}-{number}": total - number for text, total in totals.items()}
            totals = plus | minus
        solution = rng.choice(list(totals))
        target, listed = totals[solution], ",".join(map(str, numbers))
        puzzle = Puzzle(f"User: make {target} from {listed} Assistant:", solution)
        if list(totals.values()).count(target) == 1 and puzzle not in avoid:
            puzzles.append(puzzle)
    return puzzles


# ---- 1. Sample -----------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Answers and what is known of them. A row is an answer; prompts are padded on the left."""

    ids: Tensor  # [rows, prompt + answer]: the tokens
    seen: Tensor  # [rows, prompt + answer]: 1 for a token, 0 for padding before the prompt
    mask: Tensor  # [rows, answer]: True for the tokens of the answer, its end token included
    old_logps: Tensor  # [rows, answer]: log-probabilities under the policy that sampled them
    advantages: Tensor  # [rows]: 0 until they are known


def positions(seen: Tensor) -> Tensor:
    """[rows, tokens]: each token's place in its row, without the padding."""
    return (seen.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def sample(model, tokenizer, puzzles: list[Puzzle]) -> Batch:
    """Write an answer to each puzzle, token by token, at temperature 1."""
    prompts = [puzzle.prompt for puzzle in puzzles]
    asked = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    ids, seen = asked.input_ids, asked.attention_mask  # [rows, prompt]
    writing = torch.ones(len(prompts), dtype=torch.bool)  # [rows]: not ended yet
    mask, logps, fed, cache = [], [], ids, None
    while writing.any() and len(mask) < MAX_TOKENS:
        places = positions(seen)[:, -fed.shape[1] :]  # [rows, tokens fed]
        out = model(fed, attention_mask=seen, position_ids=places, past_key_values=cache)
        cache = out.past_key_values  # what it has read; next it reads one token a row
        logp = out.logits[:, -1].log_softmax(-1)  # [rows, vocabulary]
        fed = torch.multinomial(logp.exp(), 1)  # [rows, 1]: one token for each row
        mask.append(writing)
        logps.append(logp.gather(1, fed))  # [rows, 1]
        ids = torch.cat([ids, fed], 1)  # [rows, prompt + answer so far]
        seen = torch.cat([seen, torch.ones_like(fed)], 1)
        writing = writing & (fed[:, 0] != tokenizer.eos_token_id)
    return Batch(ids, seen, torch.stack(mask, 1), torch.cat(logps, 1), torch.zeros(len(prompts)))


def texts_of(batch: Batch, tokenizer) -> list[str]:
    """The answers without their end token."""
    answers = batch.ids[:, -batch.mask.shape[1] :]  # [rows, answer]
    rows = zip(answers, batch.mask, strict=True)
    return [tokenizer.decode(ids[inside], skip_special_tokens=True) for ids, inside in rows]


# ---- 2. Reward -----------------------------------------------------------------------------------


def is_right(text: str, puzzle: Puzzle) -> bool:
    """Is there one answer, and is it the solution? Only one choice of signs reaches the target."""
    answers = re.findall(r"<answer>(.*?)</answer>", text)
    return len(answers) == 1 and "".join(answers[0].split()) == puzzle.solution


def is_tidy(text: str) -> bool:
    """First the thinking, then the answer, each tag once, and nothing else."""
    tags = re.findall(r"</?(?:think|answer)>", text)
    in_order = re.fullmatch(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", text)
    return in_order is not None and len(tags) == 4


def reward(text: str, puzzle: Puzzle) -> float:
    return is_right(text, puzzle) + FORMAT_WEIGHT * is_tidy(text)


# ---- 3. Advantage --------------------------------------------------------------------------------


def group_advantages(rewards: Tensor) -> Tensor:
    """[questions, group]: how much better than its group each answer is, in standard deviations."""
    centered = rewards - rewards.mean(1, keepdim=True)  # [questions, group]
    return centered / (rewards.std(1, correction=0, keepdim=True) + 1e-6)


# ---- 4. Loss and 5. gradient ---------------------------------------------------------------------


def score(model, batch: Batch) -> Tensor:
    """[rows, answer]: the log-probability that the model now gives to each token of the answers."""
    out = model(batch.ids, attention_mask=batch.seen, position_ids=positions(batch.seen))
    width = batch.mask.shape[1]
    before = out.logits[:, -width - 1 : -1]  # [rows, answer, vocabulary]: what predicts each token
    chosen = batch.ids[:, -width:, None]  # [rows, answer, 1]
    return before.log_softmax(-1).gather(2, chosen)[:, :, 0]


def policy_loss(logps: Tensor, batch: Batch) -> Tensor:
    """[]: minus the clipped objective, averaged over all tokens of the batch."""
    ratio = torch.where(batch.mask, logps - batch.old_logps, 0.0).exp()  # [rows, answer]
    A = batch.advantages[:, None]  # [rows, 1]: all tokens of an answer share its advantage
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)  # [rows, answer]
    objective = torch.minimum(ratio * A, clipped * A)  # [rows, answer]
    return -(objective * batch.mask).sum() / batch.mask.sum()


def update(model, optimizer, batch: Batch) -> float:
    """One step down the gradient of the loss; returns the loss."""
    loss = policy_loss(score(model, batch), batch)
    loss.backward()  # the gradient: for each weight a tensor of the weight's shape
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def main() -> None:
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    weights, betas = model.parameters(), (0.9, 0.95)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=betas, weight_decay=0.0)
    held_out = draw_puzzles(rng, HELD_OUT, avoid=[])
    started = time.time()
    for rollout in range(1, ROLLOUTS + 1):
        questions = draw_puzzles(rng, QUESTIONS, avoid=held_out)
        puzzles = [puzzle for puzzle in questions for _ in range(GROUP)]  # [rows]
        batch = sample(model, tokenizer, puzzles)
        rewards = torch.tensor(list(map(reward, texts_of(batch, tokenizer), puzzles)))  # [rows]
        advantages = group_advantages(rewards.view(QUESTIONS, GROUP))  # [questions, group]
        batch = batch._replace(advantages=advantages.flatten())  # [rows]
        for rows in torch.arange(QUESTIONS * GROUP).chunk(MINIBATCHES):
            update(model, optimizer, Batch._make(tensor[rows] for tensor in batch))
        asked = sample(model, tokenizer, held_out)
        right = sum(map(is_right, texts_of(asked, tokenizer), held_out))
        print(
            f"rollout {rollout:2}: reward {rewards.mean():.2f}, held out: {right / HELD_OUT:4.0%} "
            f"right, {batch.mask.sum() / len(puzzles):3.0f} tokens, {time.time() - started:3.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
