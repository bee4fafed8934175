"""A run folder with plausible curves, for the tests of the report."""

import json
import math
import random


def fake_run(folder, *, arm="true", seed=0, finished=True, steps=240):
    """A run folder with plausible curves: what a learning run (arm "true") writes, in small."""
    rng = random.Random(f"{arm} {seed}")
    learn = rng.gauss(1.0, 0.05) if arm == "true" else rng.gauss(-0.05, 0.05)
    metrics, samples = [], []
    reached = steps if finished else steps // 3
    for step in range(0, reached + 1):
        done = learn * (1 - math.exp(-2.5 * step / steps))
        if step:
            metrics.append(train_row(step, done, rng, steps))
        if step % (steps // 6) == 0:
            metrics.append(eval_row(step, done, rng))
            samples += sample_rows(step, done, arm, rng)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "preset": "cpu", "arm": arm, "seed": seed, "steps": steps, "reference_every": steps // 3,
        "grpo": {"clip_low": 0.2, "clip_high": 0.28, "beta": 0.001, "group_size": 16},
        "temperature": 1.0, "caps": [[0, 160], [steps // 2, 256]],
    }  # fmt: skip
    dump = {"metrics": metrics, "samples": samples}
    for name, rows in dump.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config))
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary(metrics, arm, seed, steps)))
    return folder


def train_row(step, done, rng, steps):
    noise = rng.gauss
    accuracy = min(1.0, max(0.0, 0.25 + 0.45 * done + noise(0, 0.05)))
    tokens = 42 + 120 * done + noise(0, 6)
    return {
        "kind": "train", "step": step, "elapsed": 1.3 * step, "reward": accuracy + 0.25,
        "reward/accuracy": accuracy, "reward/format": min(1.0, 0.6 + 0.35 * done + noise(0, 0.03)),
        "pass_at_1": accuracy, "tokens_mean": tokens,
        "reflection": 0.5 + 3.6 * done + noise(0, 0.2),
        "entropy": 0.24 - 0.12 * done + noise(0, 0.008), "kl": abs(0.009 * done + noise(0, 0.001)),
        "clip_fraction": abs(noise(0.008, 0.004)), "cap": 160 if step <= steps / 2 else 256,
        "truncated": abs(0.06 * done + noise(0, 0.015)),
    }  # fmt: skip


def eval_row(step, done, rng):
    row = {"kind": "eval", "step": step}
    levels = {}
    for level in range(1, 6):
        p = 0.62 - 0.14 * level + (0.55 - 0.03 * level) * done + rng.gauss(0, 0.02)
        p = min(0.98, max(0.01, p))
        band = [max(0.0, p - 0.07), min(1.0, p + 0.07)]
        levels[str(level)] = {"n": 60, "pass_at_1": p, "ci95": band}
    mean = sum(cell["pass_at_1"] for cell in levels.values()) / 5
    values = {
        "pass_at_1": mean, "pass_at_1_strict": mean * (0.7 + 0.28 * max(0.0, done)),
        "cons_at_16": min(0.97, mean + 0.13), "pass_at_16": min(0.99, mean + 0.3),
    }  # fmt: skip
    for key, value in values.items():
        row |= {key: value, f"{key}_ci95": [max(0.0, value - 0.04), min(1.0, value + 0.04)]}
    return row | {
        "mean_tokens": 42 + 118 * done, "reflection_per_answer": 0.5 + 3.5 * done,
        "format": min(1.0, 0.6 + 0.38 * done), "mixing": 0.28 + 0.08 * done,
        "repeats": 0.07 + 0.15 * done, "in_order": 0.4 + 0.2 * done, "by_level": levels,
    }  # fmt: skip


def sample_rows(step, done, arm, rng):
    tries = ["9+5=14+1=15:13 no wait", "9-5=4+1=5:13 不 等", "9-5=4-1=3:13 non attends"]
    rows = []
    for level in range(1, 6):
        chain = " ".join(tries[: 1 + round(2 * max(0.0, done))] * level)
        text = f"<think> {chain} 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer>"
        rows.append({
            "id": f"signs-{level}", "family": "signs", "level": level, "lang": "en",
            "prompt": "make 13 from " + ",".join(map(str, range(9, 9 - 2 - level, -1))),
            "solution": "13", "tests": None, "meta": {}, "completion": text,
            "rewards": {"accuracy": float(done > 0.3), "format": 1.0}, "advantage": rng.gauss(0, 1),
            "finish": "length" if level == 5 and step else "stop", "step": step, "source_run": arm,
        })  # fmt: skip
    return rows


def summary(metrics, arm, seed, steps):
    evals = [row for row in metrics if row["kind"] == "eval"]
    return {
        "wall_seconds": 431.0, "train_seconds": 318.4, "peak_memory_gb": 2.31, "steps": steps,
        "seed": seed, "arm": arm, "base": evals[0], "final": evals[-1],
        "command": "r1lab zero --preset cpu --seed 0",
        "machine": {"cpu": "Example CPU 3000", "cores": 2, "gpu": None, "memory_gb": 15.6,
                    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.19.0"}},
    }  # fmt: skip
