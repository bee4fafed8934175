"""`r1lab eval --suite`: the paper's benchmarks on one model, with the paper's numbers beside."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text
from transformers import PretrainedConfig

from r1lab.errors import InputError
from r1lab.evaluation.suites import NOWHERE, SuiteConfig, long_tail, run_suite, suite_table
from r1lab.models.policy import Policy, load_model
from r1lab.sampling import Sampler, SamplerName, TorchSampler, VLLMConfig, build_sampler
from r1lab.training.estimate import CACHE_GROWTH, PROMPT_TOKENS, shape_of

FREE = ("suite", "benchmarks", "seed", "batch")  # what the paper's protocol leaves to choose
UNLIMITED = 1 << 30  # where a model's settings name no longest sequence


def evaluate_suite(
    config: SuiteConfig, name: str = "", runs: Path = Path("runs"),
    sampler: SamplerName = "torch", vllm: VLLMConfig = VLLMConfig(),
) -> Path:  # fmt: skip
    """Run or go on with an evaluation in `runs/name`, print its table, return the folder.

    Which sampler answers may change when it goes on: the protocol is the same.

    Raises InputError: see `run_suite`, and where vLLM is missing or does not start."""
    folder = runs / (name or f"eval-{config.suite}-{Path(config.model).name}")
    console, rows = Console(), {}
    opened = partial(open_model, sampler=sampler, vllm=vllm, max_tokens=config.max_tokens)
    for benchmark, result in run_suite(config, opened, folder):
        rows[benchmark] = result
        console.print(f"{result['title']}: pass@1 {result['pass_at_1']:.1f}")
    console.print(suite_table(rows))
    usual = asdict(SuiteConfig(config.model)) | {name: getattr(config, name) for name in FREE}
    changed = [f"{key} {value}" for key, value in asdict(config).items() if value != usual[key]]
    if changed:
        console.print(f"A trial ({', '.join(changed)}), so not to be compared with the paper.")
    console.print(f"Stored in {folder}. MMLU, DROP, IF-Eval and more, by lm-eval (pip install lm_eval[hf]):")
    console.print(Text(long_tail(config, folder)), soft_wrap=True)
    console.print(NOWHERE)
    return folder


def open_model(
    path: str, sampler: SamplerName = "torch", vllm: VLLMConfig = VLLMConfig(), max_tokens: int = 1024
) -> tuple[Sampler, object, int]:
    """(sampler, tokenizer, longest sequence): on a GPU in bfloat16 where there is one.

    There the torch sampler takes as many completions of `max_tokens` at a time as fit."""
    on_gpu = torch.cuda.is_available()
    model, tokenizer = load_model(path, torch.bfloat16 if on_gpu else torch.float32)
    if on_gpu and sampler == "torch":  # vLLM puts weights of its own there
        model = model.to("cuda")
    Policy(model)  # refuses what the sampler cannot score
    longest = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    if on_gpu and sampler == "torch":
        rows = rows_that_fit(model.config, max_tokens, torch.cuda.mem_get_info()[0])
        return TorchSampler(model, tokenizer, max_rows=rows), tokenizer, longest
    return build_sampler(sampler, model, tokenizer, vllm), tokenizer, longest


def rows_that_fit(config: PretrainedConfig, max_tokens: int, free: int) -> int:
    """How many completions, 256 at most, have keys and values that fill 0.8 of the free bytes."""
    try:
        token = shape_of(config).kv_bytes(bytes_each=2)
    except InputError:  # a model of which nothing is predicted
        return 256
    return max(1, min(256, int(0.8 * free / ((PROMPT_TOKENS + max_tokens) * CACHE_GROWTH * token))))
