"""Seconds and memory of a whole GRPO rollout of a real model: today's code, earlier code, and TRL.

    python tests/benchmarks/bench_real.py [--model NAME] [--repeats N] [--out FILE.json]   (make bench-real)

Each side samples, scores and learns from the same number of answers to questions of one kind, in the
preset's settings, on all cores, one process with all threads. The learning rate is small enough to
leave lengths as they are. Each arm runs in a fresh process, one after the other in turns; its first
rollout is not measured. TRL runs in float32 and in bfloat16, and in two sizes of micro-batch; the
fastest counts. Beside the seconds of the clock stand those of the processors, which other work on the
machine disturbs less.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[2]
BEFORE = "32835ae"  # the earlier code's commit
RATE = 1e-7
TRL = {
    "TRL, float32, 8 rows": (False, 8), "TRL, bfloat16, 8 rows": (True, 8), "TRL, bfloat16, 32 rows": (True, 32),
}  # fmt: skip
ARMS = ("today", BEFORE, *TRL)


class Clock:
    """What each rollout took; `tick` ends one."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.tokens: list[float] = []

    def tick(self, tokens: float | None = None) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))
        self.tokens += [] if tokens is None else [tokens]

    def result(self) -> dict:
        """Of the rollouts after the first: means of seconds, processor seconds and sampled tokens."""
        rollouts = len(self.ends) - 1
        wall, cpu = ((last - first) / rollouts for first, last in zip(self.ends[0], self.ends[-1]))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        tokens = statistics.mean(self.tokens[1:])
        return {"seconds": wall, "cpu_seconds": cpu, "tokens": tokens, "peak_memory_gb": memory}


def today(preset: str, model: str, changes: dict) -> dict:
    from r1lab.models.policy import Policy, load_model
    from r1lab.stages.rl_stages import PRESETS
    from r1lab.training.config import GRPOConfig
    from r1lab.training.distributed import World
    from r1lab.training.loop import Learner

    loaded, tokenizer = load_model(model)
    config, clock = GRPOConfig.preset(preset, learning_rate=RATE, **changes), Clock()
    learner = Learner(config, PRESETS[preset].open_task(), Policy(loaded), tokenizer, World())
    learner.train(lambda rollout, drawn, updates: clock.tick(sum(map(len, drawn.completion_ids))))
    return clock.result()


def before(preset: str, model: str, changes: dict) -> dict:
    """The same by the code of BEFORE, with its names."""
    from dataclasses import replace

    from r1lab.models.policy import Policy, load_model
    from r1lab.training.run import rewards_of
    from r1lab.stages.zero import PRESETS
    from r1lab.training.distributed import World
    from r1lab.training.loop import Learner

    loaded, tokenizer = load_model(model)
    config, clock = replace(PRESETS[preset], learning_rate=RATE, **changes), Clock()
    learner = Learner(config, Policy(loaded), tokenizer, World())
    tick = lambda rollout, drawn, updates: clock.tick(sum(map(len, drawn.completion_ids)))  # noqa: E731
    learner.train(config.problems, rewards_of(config), tick)
    return clock.result()


def trl(preset: str, model: str, changes: dict, half: bool, rows: int) -> dict:
    """The same in TRL: its trainer, its generation, its loss."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig as TRLConfig
    from trl import GRPOTrainer

    from r1lab.models.policy import load_model
    from r1lab.rewards import RewardSet
    from r1lab.sources.templates import prompt_of
    from r1lab.stages.rl_stages import PRESETS
    from r1lab.task import columns_of
    from r1lab.training.config import GRPOConfig

    config, task, clock = GRPOConfig.preset(preset, **changes), PRESETS[preset].open_task(), Clock()
    loaded, tokenizer = load_model(model)
    loaded.config._name_or_path = model  # where TRL loads the reference policy from

    class Ticks(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % config.minibatches == 0:
                clock.tick()

    drawn = [task.draw(config.seed, rollout, config.questions) for rollout in range(config.rollouts)]
    problems = sum(drawn, [])
    rewards = RewardSet(task.rewards)

    def reward(prompts, completions, completion_ids, row, **columns):
        asked = columns_of([problems[i] for i in row])
        totals, _ = rewards(prompts, completions, completion_ids=completion_ids, **asked)
        return totals

    answers = config.questions * config.group_size
    rows = min(rows, answers // config.minibatches)
    turns = answers // config.minibatches // rows
    prompts = [prompt_of(task, problem, tokenizer) for problem in problems]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=loaded, processing_class=tokenizer, reward_funcs=reward, callbacks=[Ticks()],
            train_dataset=Dataset.from_dict({"prompt": prompts, "row": [*range(len(problems))]}),
            args=TRLConfig(
                output_dir=folder, max_steps=config.minibatches * config.rollouts, report_to="none",
                per_device_train_batch_size=rows, gradient_accumulation_steps=turns,
                steps_per_generation=turns * config.minibatches, num_generations=config.group_size,
                max_completion_length=config.cap(0), temperature=1.0, top_k=0, top_p=1.0,
                beta=config.loss.beta, epsilon=0.2, epsilon_high=0.28, loss_type="dapo",
                learning_rate=RATE, lr_scheduler_type="constant", use_cpu=True, bf16=half,
                gradient_checkpointing=False, save_strategy="no", logging_steps=config.minibatches,
                shuffle_dataset=False, disable_tqdm=True,
            ),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    lengths = [log.get("completions/mean_length") for log in trainer.state.log_history]
    clock.tokens = [length * answers for length in lengths if length is not None]
    return clock.result()


def work(arm: str, preset: str, model: str, changes: dict) -> dict:
    """Run one arm in this process."""
    if arm in TRL:
        return trl(preset, model, changes, *TRL[arm])
    return (today if arm == "today" else before)(preset, model, changes)


def in_a_process(arm: str, preset: str, model: str, changes: dict, earlier: Path) -> dict:
    from r1lab.training.processes import WORKER_ENVIRONMENT

    tree = earlier if arm == BEFORE else ROOT
    cores = len(os.sched_getaffinity(0))
    threads = {"OMP_NUM_THREADS": str(cores), "PYTHONPATH": str(tree)}
    # The worker's own folder would come first, and it is not the earlier code's.
    code = "import json, sys; sys.path.insert(1, sys.argv[1]); from bench_real import work; " \
           "print('RESULT', json.dumps(work(*json.loads(sys.argv[2]))))"  # fmt: skip
    asked = json.dumps([arm, preset, model, changes])
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), asked], cwd=tree, text=True,
        env=os.environ | WORKER_ENVIRONMENT | threads, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    last = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")][-1]
    return json.loads(last.removeprefix("RESULT "))


def main(
    preset: str = "smollm2", model: str = "", rollouts: int = 2, repeats: int = 2,
    arms: tuple[str, ...] = ARMS, note: str = "", out: Path | None = None,
    questions: int = 0, group_size: int = 0, cap: int = 0,
) -> None:  # fmt: skip
    """Compare a whole rollout (sampling, rewards, reference, updates) of all sides.

    Args:
        model: a folder or name; the preset's if empty.
        rollouts: of each arm; the first is not measured.
        note: what else should be known of the measurement, for example other work on the machine.
        out: file for the results as JSON; they are printed in any case.
        questions, group_size, cap: other than the preset's, for a trial.
    """
    from record import record, spread

    from r1lab.models.policy import load_model
    from r1lab.stages.rl_stages import PRESETS

    changes = {"rollouts": rollouts, "processes": 1, "questions": questions, "group_size": group_size}
    changes["caps"] = cap and ((0, cap),)
    changes = {name: value for name, value in changes.items() if value}
    runs: dict[str, list[dict]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        weights, earlier = Path(folder) / "model", Path(folder) / "earlier"
        loaded, tokenizer = load_model(model or PRESETS[preset].model)
        loaded.save_pretrained(weights)
        tokenizer.save_pretrained(weights)
        del loaded
        if BEFORE in arms:
            earlier.mkdir()
            packed = subprocess.run(["git", "-C", ROOT, "archive", BEFORE, "r1lab", "data"], stdout=-1, check=True)
            subprocess.run(["tar", "x", "-C", earlier], input=packed.stdout, check=True)
        for _ in range(repeats):
            for arm in arms:
                runs[arm].append(in_a_process(arm, preset, str(weights), changes, earlier))
                print(arm, {name: round(value, 1) for name, value in runs[arm][-1].items()}, flush=True)
    record(summary(runs, spread) | {"preset": preset, "changes": changes, "note": note}, out)


def summary(runs: dict[str, list[dict]], spread) -> dict:
    """Seconds of each arm, its memory, and how long each takes for today's work (by tokens)."""
    found = {
        arm: {name: spread([run[name] for run in rows]) for name in rows[0]} for arm, rows in runs.items()
    }
    ratios = {}
    for clock in ("seconds", "cpu_seconds"):
        pace = {arm: [run[clock] / run["tokens"] for run in rows] for arm, rows in runs.items()}
        ratios[clock] = {
            arm: spread([one / now for one, now in zip(pace[arm], pace["today"], strict=True)]) for arm in runs
        }
    return {"arms": found, "times_today's": ratios}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    tyro.cli(main)
