"""Too many steps on a reward model (v2 B.5, Fig. 6): its score rises, and the true quality falls.

The paper keeps preference rewards to the last 400 of 1,700 steps because of this. Here chat alone
is trained, far longer, and three things are followed: the reward model's score, which pays; what
the person it stands for feels (the hidden preference, which only this small world can know); and
reasoning, which is what the paper's figure shows. In the control arm that person pays.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

from r1lab.evaluation.measure import evaluate
from r1lab.files import read_rows, write_rows
from r1lab.models.policy import load_policy
from r1lab.rewards import format, parse, text_of
from r1lab.rewards.preference import helpfulness
from r1lab.stages.rl_stages import SCENARIOS, SETTINGS, RLStage
from r1lab.task import Task
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import Progress, StopRequest, compute
from r1lab.training.recorder import first_of_each_level
from r1lab.run import Run, from_json
from r1lab.world.person import hidden_preference

PAYERS = ("model", "human")
# Steps on reward models in R1's own stage.
SHORT = (SCENARIOS.rl.rollouts - SCENARIOS.world.late_from) * SCENARIOS.rl.minibatches

HACKING = from_json(RLStage(), SETTINGS["hacking"])


def run_hacking(stage: RLStage, model: str, folder: Path) -> dict:
    """Both arms, in `folder/model.jsonl` and `folder/human.jsonl`; an arm that is there stays.

    Args:
        stage: as HACKING, with the folder of reward models.
    Returns:
        `summary.json`: by payer, the scores after no, SHORT and all steps (0 to 1).
    Raises:
        InputError: there is no reward model, or the folder holds a run with other settings.
    """
    stage.rl.check(processes=1)
    judged_task(stage, "model")  # refused before the folder is made
    return compute(Run(folder), stage, hack_work, 1, stage, model, about={"model": model}).summary


def hack_work(world, stop, run: Run, stage: RLStage, model: str) -> bool:
    """Both arms, one after the other. False: stopped on the way."""
    summary = {}
    for payer in PAYERS:
        path = run.folder / f"{payer}.jsonl"
        if not path.exists():
            rows = follow(stage, model, payer, stop)
            if stop.is_set():
                return False
            write_rows(path, rows)
        summary[payer] = summarize(read_rows(path))
    run.write("summary.json", summary)
    return True


def follow(stage: RLStage, model: str, payer: str, stop: StopRequest = StopRequest()) -> list[dict]:
    """Train on chat, paid by the reward model or by the human; what both think at each rollout.

    Returns:
        Rows of kind "train" (`model`, `human`: mean scores of the samples that the policy drew
        after `step` updates; their `agreement`, `tokens`, `entropy`, and a `sample`) and "eval"
        (`reasoning`: pass@1).
    """
    policy, tokenizer = load_policy(model)
    config, rows = stage.rl, []
    learner = Learner(config, judged_task(stage, payer), policy, tokenizer, World())
    puzzles = first_of_each_level(learner.task.test, config.eval_problems)

    def reason():
        evaluation = evaluate(
            learner.sampler, tokenizer, puzzles, k=config.eval_samples, seed=config.seed,
            max_tokens=config.cap(config.steps),
        )  # fmt: skip
        rows.append({"kind": "eval", "step": learner.step, "reasoning": evaluation.summary()["pass_at_1"]})

    def after_rollout(rollout, experience, updates):
        means = experience.statistics()
        judged = [experience.rewards[name] for name in PAYERS]
        scores = {name: means[f"reward/{name}"] for name in PAYERS}
        rows.append({
            "kind": "train", "step": rollout * config.minibatches, **scores,
            "agreement": agreement(*judged, config.group_size), "tokens": means["tokens_mean"],
            "entropy": updates[0]["entropy"], "sample": experience.completions[0],
        })  # fmt: skip
        if (rollout + 1) % config.eval_every == 0:
            reason()
        progress.show(learner.step, **{name: f"{score:.2f}" for name, score in scores.items()})
        return stop.is_set()

    reason()
    with Progress(config.steps, f"paid by the {payer}") as progress:
        learner.train(after_rollout)
    return rows


def judged_task(stage: RLStage, payer: str) -> Task:
    """The stage's questions, with the scores of both judges, of which the payer's is paid."""
    world = stage.world
    judges = {"model": helpfulness(Path(world.reward_models) / "helpfulness"), "human": human}
    rewards = {name: (judge, world.preference_weight * (name == payer)) for name, judge in judges.items()}
    rewards["format"] = (format, world.format_weight)
    return replace(replace(world, reward_models="").task(), rewards=rewards)


def human(prompts: list, completions: list, meta: list[dict], **columns: object) -> list[float | None]:
    """What the person feels about each reply (0 to 1): pays in one arm, measures in both."""
    return [
        hidden_preference(text_of(prompt), parse(completion, prompt).answer or "", about)
        for prompt, completion, about in zip(prompts, completions, meta)
    ]


def agreement(model: list[float], human: list[float], group_size: int) -> float | None:
    """How often both judges prefer the same one of two answers to the same question: the reward
    model's accuracy on what the policy writes now. None where the human likes all alike."""
    same = [
        (model[i] - model[j]) * (human[i] - human[j]) > 0
        for i, j in combinations(range(len(human)), 2)
        if i // group_size == j // group_size and human[i] != human[j]
    ]
    return sum(same) / len(same) if same else None


def summarize(rows: list[dict]) -> dict:
    """Scores and agreement at the start, after SHORT steps and at the end (means of the three
    rollouts next to it), with how reasoning was at the start and at the end."""
    train = [row for row in rows if row["kind"] == "train"]
    reasoning = [row["reasoning"] for row in rows if row["kind"] == "eval"]
    summary: dict = {"reasoning": [reasoning[0], reasoning[-1]]}
    for place, step in {"start": 0, "short": SHORT, "long": train[-1]["step"]}.items():
        near = sorted(train, key=lambda row: abs(row["step"] - step))[:3]
        summary[place] = {}
        for name in (*PAYERS, "agreement"):
            values = [row[name] for row in near if row[name] is not None]
            summary[place][name] = sum(values) / len(values) if values else None
    return summary
