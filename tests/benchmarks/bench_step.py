"""Seconds of a whole GRPO rollout: `Learner` against `trl.GRPOTrainer`, on two cores of a CPU.

    python tests/benchmarks/bench_step.py [--model FOLDER] [--repeats N] [--out FILE.json]

Both sides start from the same model and do the same work: 16 questions, 16 completions each at
temperature 1 with a cap of 256 tokens, the same two rewards, log-probs of a reference policy,
four updates. Then the same without a KL term: no side has a reference policy, and r1lab's updates
skip the groups that are all right or all wrong, which changes no gradient. The model is a trained one, so that lengths are as sampled by it; the learning rate
is small enough to leave them so. TRL runs in the settings that are best for it among those tried:
one process of two threads or two processes of one, and two sizes of micro-batch. Each arm runs in
fresh processes; the arms take turns, the first rollout of each is not measured, and the ratio is
taken repeat by repeat. What takes the time is compared, not what is learned.
"""

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from record import ROOT, record, spread

import r1lab.lab  # finds what lies beside the lessons
from descendants import SkipSilent
from r1lab.objective import LossConfig
from r1lab.models.policy import Policy, load_model
from r1lab.rewards import RewardSet
from r1lab.sources.templates import apply_template
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest, launch
from r1lab.world.small_world import SmallWorld

QUESTIONS, GROUP, UPDATES, CAP, MEASURED = 16, 16, 4, 256, 2
ROWS = QUESTIONS * GROUP // UPDATES  # of an update
RATE = 1e-7


@dataclass(frozen=True)
class Arm:
    """One way to run one side; `microbatch` counts rows for TRL and tokens for r1lab."""

    side: str
    processes: int
    microbatch: int
    beta: float = 0.001

    def __str__(self) -> str:
        unit = "tokens" if self.side == "r1lab" else "rows"
        kl = "" if self.beta else ", no KL"
        return f"{self.side}: {self.processes} x {2 // self.processes} threads, {self.microbatch} {unit}{kl}"


ARMS = (Arm("r1lab", 2, 1024), Arm("trl", 1, 16), Arm("trl", 1, 64), Arm("trl", 2, 16), Arm("trl", 2, 32))
ARMS += (Arm("r1lab", 2, 1024, 0.0), Arm("trl", 2, 16, 0.0), Arm("trl", 2, 32, 0.0))


def run_r1lab(world: World, stop: StopRequest, arm: Arm, model: str, out: Path) -> bool:
    """Worker: train a few rollouts, and write down when each one ended."""
    policy, tokenizer = load_model(model)
    config = GRPOConfig.preset(
        "cpu", rollouts=1 + MEASURED, questions=QUESTIONS, group_size=GROUP, minibatches=UPDATES,
        learning_rate=RATE, caps=((0, CAP),), microbatch_tokens=arm.microbatch,
        loss=LossConfig(beta=arm.beta),
    )  # fmt: skip
    kind = Learner if arm.beta else SkipSilent
    learner = kind(config, SmallWorld().task(), Policy(policy), tokenizer, world)
    ends, tokens, silent = [], [], []

    def after_rollout(rollout, experience, updates) -> bool:
        ends.append(time.perf_counter())
        tokens.append(sum(map(len, experience.completion_ids)))
        silent.append(experience.statistics()["zero_std_groups"])
        return False

    learner.train(after_rollout)
    if world.is_main:
        out.write_text(json.dumps({"ends": ends, "tokens": tokens[1:], "silent": silent[1:]}))
    return True


def run_trl(world: World, stop: StopRequest, arm: Arm, model: str, out: Path) -> bool:
    """The same in TRL: its trainer, its generation, its loss."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig as TRLConfig
    from trl import GRPOTrainer

    policy, tokenizer = load_model(model)
    policy.config._name_or_path = model  # where TRL loads the reference policy from
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % UPDATES == 0:
                ends.append(time.perf_counter())

    task = SmallWorld().task()
    rewards = RewardSet(task.rewards)
    rows = [one for rollout in range(1 + MEASURED) for one in task.draw(0, rollout, QUESTIONS)]
    columns = {
        "prompt": [apply_template("small", problem.prompt) for problem in rows],
        **{name: [getattr(p, name) for p in rows] for name in ("solution", "family", "level", "lang")},
        "meta": [json.dumps(problem.meta) for problem in rows],
    }

    def reward(prompts, completions, completion_ids, meta, **columns):
        totals, _ = rewards(
            prompts=prompts, completions=completions, meta=[json.loads(m) for m in meta],
            **{name: columns[name] for name in ("solution", "family", "level", "lang")},
        )  # fmt: skip
        return totals

    accumulation = ROWS // (arm.processes * arm.microbatch)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy,
            processing_class=tokenizer,
            reward_funcs=reward,
            train_dataset=Dataset.from_dict(columns),
            callbacks=[Clock()],
            args=TRLConfig(
                output_dir=folder, max_steps=UPDATES * (1 + MEASURED), report_to="none",
                per_device_train_batch_size=arm.microbatch,
                gradient_accumulation_steps=accumulation,
                steps_per_generation=accumulation * UPDATES,
                num_generations=GROUP, max_completion_length=CAP, temperature=1.0, top_k=0,
                top_p=1.0, beta=arm.beta, epsilon=0.2, epsilon_high=0.28, loss_type="dapo",
                learning_rate=RATE, lr_scheduler_type="constant", use_cpu=True, bf16=False,
                gradient_checkpointing=False, save_strategy="no", logging_steps=UPDATES,
                shuffle_dataset=False, disable_tqdm=True,
            ),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if trainer.accelerator.is_main_process:
        logs = [log for log in trainer.state.log_history if "completions/mean_length" in log]
        tokens = [log["completions/mean_length"] * QUESTIONS * GROUP for log in logs]
        out.write_text(json.dumps({"ends": ends, "tokens": tokens[1:]}))
    return True


def run_arm(arm: Arm, model: str) -> dict:
    """Seconds and tokens of a rollout, averaged over the measured ones."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        work = run_r1lab if arm.side == "r1lab" else run_trl
        launch(work, arm.processes, arm, model, out, saves=False)
        times = json.loads(out.read_text())
    seconds = (times["ends"][-1] - times["ends"][0]) / MEASURED
    silent = statistics.mean(times.get("silent", [0.0]))
    return {"seconds": seconds, "tokens": statistics.mean(times["tokens"]), "silent": silent}


def compared(pace: dict[Arm, list[float]], beta: float) -> dict:
    """Of the arms with this weight of the KL term: TRL's best, and its time over r1lab's."""
    ours, *theirs = [arm for arm in ARMS if arm.beta == beta]
    best = min(theirs, key=lambda arm: statistics.median(pace[arm]))
    ratio = spread([t / o for t, o in zip(pace[best], pace[ours], strict=True)])
    return {"best_of_trl": str(best), "ratio": ratio}


def main(model: str = str(ROOT / "data" / "zero"), repeats: int = 3, out: Path | None = None) -> None:
    """Compare a whole rollout (sampling, rewards, reference, updates) with TRL's.

    Args:
        model: folder of a trained model in Hugging Face format.
        repeats: of every arm.
        out: file for the results as JSON; they are printed in any case.
    """
    runs = {arm: [] for arm in ARMS}
    for _ in range(repeats):
        for arm in ARMS:
            runs[arm].append(run_arm(arm, model))
            print(f"{arm}: {runs[arm][-1]['seconds']:.1f} s", flush=True)
    # Lengths differ a little between the sides' draws: compare seconds for as many tokens.
    pace = {arm: [run["seconds"] / run["tokens"] for run in runs[arm]] for arm in ARMS}
    result = {
        "model": Path(model).name,
        "completions": QUESTIONS * GROUP,
        "updates": UPDATES,
        "mean_tokens": {
            str(arm): statistics.mean(r["tokens"] for r in runs[arm]) / (QUESTIONS * GROUP) for arm in ARMS
        },
        "seconds": {str(arm): spread([run["seconds"] for run in runs[arm]]) for arm in ARMS},
        **compared(pace, beta=0.001),
        "no_kl": compared(pace, beta=0.0),
        "silent_groups": statistics.mean(run["silent"] for arm in ARMS for run in runs[arm] if run["silent"]),
        "repeats": repeats,
    }
    record(result, out)


if __name__ == "__main__":
    torch.manual_seed(0)
    tyro.cli(main)
