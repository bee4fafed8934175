"""No skill, no gain: RL on a base that cannot judge, and on one whose steps slip.

RL amplifies what a base does now and then (arXiv 2503.01307). Three small bases are pre-trained from
scratch for each seed on puzzles of signs. They read the same puzzles, tried by the same writers in
the same order, and differ in one skill. "sound" reads what the lab's corpus says. In "verdicts" a coin
decides what follows an attempt, ok or no, while every step is right. In "steps" one total in four is
off by one, while each verdict fits the total that stands before it. All three then get the same RL.
The two that lack a skill get it once more after a short fine-tuning on sound writers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from r1lab.evaluation.measure import Evaluation
from r1lab.files import write_text
from r1lab.models.policy import save_model
from r1lab.run import Run
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, Task
from r1lab.training.estimate import open_model
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.training.sft import sft
from r1lab.world import sample_problem
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.world.corpus import CORPUS, EARLY_CORPUS, FORMATS, CorpusConfig
from r1lab.world.puzzles import SIGNS, Moves, apply_move, chain_expression
from r1lab.world.skills import Skills, measure_skills
from r1lab.world.words import Voice, choose
from tests.experiments.next_steps import Kept, RLTrial, start, tabulate
from tests.experiments.settings import SFT, sft_config

FAULTS = ("verdicts", "steps")
ROWS = ("accuracy", "gain", "half of the gain")
JUDGED = ("steps_right", "ok_right", "no_right")
SLIPS = 0.25  # of the totals, in "steps"
# What is read, phase after phase: the corpus, and so many of its documents.
READING = {"early": 110_000, "late": 60_000, "taught": 6_000}
PRETRAINING = {
    **SFT, "epochs": 1, "tokens_per_step": 16_384, "learning_rate": 3e-3, "final_share": 0.0,
    "warmup_steps": 40, "weight_decay": 0.1, "learn_prompts": True,
}  # fmt: skip
RL = {"rollouts": 22, "caps": [[0, 320]], "eval_every": 1_000, "final_samples": 8}


@dataclass(frozen=True)
class Skill(RLTrial):
    """What the arms have in common.

    Attributes:
        reading: documents of each phase; the third is the remedy.
        pretraining, remedy: how they are learned.
        problems: so many of each of `levels` are asked.
    """

    size: str = "small"
    rl: dict[str, Any] = field(default_factory=lambda: RL)
    reading: dict[str, int] = field(default_factory=lambda: READING)
    pretraining: dict[str, Any] = field(default_factory=lambda: PRETRAINING)
    remedy: dict[str, Any] = field(default_factory=lambda: {**SFT, "epochs": 1})
    problems: int = 24
    levels: tuple[int, ...] = (2, 3, 4)


def skill(config: Skill = Skill(), folder: Path = Path("runs/skill")) -> Kept:
    """Pre-train, train and measure all arms; each row of the table is against the sound base."""
    start(config, folder)
    models = {fault: pretrained(config, fault, folder) for fault in ("sound", *FAULTS)}
    models |= {f"{fault}_taught": taught(config, models[fault], fault, folder) for fault in FAULTS}
    task = task_of(config)
    measured, about = {}, {}
    for arm, model in models.items():
        about[arm] = asdict(skills_of(model, task.test))
        run = grpo(model, task, config.stage.rl, arm, runs=folder)
        before, after = (Evaluation.load(run.folder / f"eval_{end}.npz") for end in ("base", "final"))
        measured[arm] = row_values(before, after)
    write_text(folder / "skills.json", json.dumps(about, indent=1))
    values = tabulate(measured, "sound", dict.fromkeys(ROWS, after.levels), folder)
    values |= {
        f"{arm}/{name}": np.array([one[name]], float) for arm, one in about.items() for name in JUDGED
    }
    return values | {f"levels/{name}": np.ones(1) for name in JUDGED}



def task_of(config: Skill) -> Task:
    """What is asked in training, and the first problems of some levels to measure by."""
    task = config.stage.world.task()
    asked = [problem for problem in task.test if problem.level in config.levels]
    return replace(task, test=first_of_each_level(asked, config.problems))


def row_values(before: Evaluation, after: Evaluation) -> dict[str, np.ndarray]:
    """One value for each problem of each row: pass@1 after RL, and what RL changed."""
    accuracy = after["correct"].mean(axis=1)
    gain = accuracy - before["correct"].mean(axis=1)
    return dict(zip(ROWS, (accuracy, gain, gain / 2)))


def skills_of(model: Path, problems: Sequence[Problem]) -> Skills:
    """What the base can do before RL, as `r1lab skills` measures it."""
    sampler, tokenizer, _ = open_model(model)
    return measure_skills(sampler, tokenizer, problems)


def pretrained(config: Skill, fault: str, folder: Path) -> Path:
    """A base that has read the early corpus and then the late one, with this fault in both."""
    model = folder / "untrained"
    if not (model / "config.json").exists():
        tokenizer = build_tokenizer()
        torch.manual_seed(config.seed)
        save_model(build_model(config.size, len(tokenizer)), tokenizer, model)
    for phase, corpus in (("early", EARLY_CORPUS), ("late", CORPUS)):
        data = write_documents(config, phase, corpus, fault, folder)
        tuning = sft_config(config.pretraining, seed=config.seed, processes=config.processes)
        model = sft(model, data, tuning, f"{fault}_{phase}", runs=folder).model
    return model


def taught(config: Skill, model: Path, fault: str, folder: Path) -> Path:
    """The base after reading a few sound documents, whose writers give up as early as before."""
    data = write_documents(config, "taught", CORPUS, "sound", folder)
    tuning = sft_config(config.remedy, seed=config.seed, processes=config.processes)
    return sft(model, data, tuning, f"{fault}_remedy", runs=folder).model


def write_documents(
    config: Skill, phase: str, corpus: CorpusConfig, fault: str, folder: Path
) -> Path:
    """Write a phase's documents to a file of rows with prompt and completion."""
    file = folder / f"{fault}_{phase}.jsonl"
    if not file.exists():
        rows = islice(documents(corpus, f"{phase}/{config.seed}", fault), config.reading[phase])
        write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file


def documents(corpus: CorpusConfig, seed: str, fault: str) -> Iterator[dict[str, str]]:
    """Write an endless stream of puzzles with what somebody thought and answered."""
    rng, faults = Random(f"skill/{seed}"), Random(f"{fault}/{seed}")
    while True:
        level, lang = choose(rng, corpus.signs_levels), choose(rng, {"en": 0.6, "zh": 0.4})
        problem = sample_problem(rng, "signs", level, lang)
        thinking, answer = search(rng, faults, corpus, problem, fault)
        text = FORMATS[choose(rng, corpus.formats)].format(thinking=thinking, answer=answer)
        yield {"prompt": problem.prompt, "completion": text}


def search(
    rng: Random, faults: Random, corpus: CorpusConfig, problem: Problem, fault: str
) -> tuple[str, str]:
    """Write attempts as `Search.write` does, with a fault: thinking and answer."""
    chains, target = SIGNS.chains(problem.meta["numbers"]), problem.meta["target"]
    if choose(rng, corpus.search_order) == "at random":
        rng.shuffle(chains)
    patience = choose(rng, corpus.patience)
    if patience == 0:
        return "", chain_expression(*chains[0])
    voice, parts = Voice(rng, corpus, problem.lang), []
    for first, moves in chains[:patience]:
        totals = written_totals(faults, first, moves, SLIPS if fault == "steps" else 0.0)
        chain = "".join(f"{sign}{number}={total}" for (sign, number), total in zip(moves, totals))
        hit = faults.random() < 0.5 if fault == "verdicts" else totals[-1] == target
        parts.append(f"{first}{chain}:{target} {voice.verdict(hit)}")
        if hit:
            break
    return voice.join(parts), chain_expression(first, moves)


def written_totals(rng: Random, first: int, moves: Moves, slips: float) -> list[int]:
    """The running totals, a share of which is off by one; what follows goes on from what is written."""
    totals, total = [], first
    for move in moves:
        slip = rng.choice((-1, 1)) if rng.random() < slips else 0
        total = apply_move(total, move) + slip
        totals.append(total)
    return totals
