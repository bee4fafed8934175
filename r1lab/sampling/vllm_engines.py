"""The two ways to run vLLM: inside this process, or as a server. To import this takes no vLLM."""

import copy
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from r1lab.errors import InputError

VERSION = "0.32.0"  # of vLLM: what is used of it below is no stable interface
EXTENSION = "r1lab.sampling.vllm_worker.WeightUpdate"
PROCESSED = "processed_logprobs"  # vLLM's word for: after temperature, top-k and top-p
# The part of a GPU's memory that must be free when vLLM starts. It would ask for 0.92, even where
# it is told how large its cache shall be, and refuse to start beside a model.
FREE_AT_START = 0.01


@dataclass(frozen=True)
class VLLMConfig:
    """How vLLM runs.

    Attributes:
        server: address of a server that `server_command` started; "" is vLLM in this process.
            Trainer and server must see the same folder for temporary files (TMPDIR), through which
            the weights go.
        dtype: of weights and arithmetic; "auto" is the policy's own, or a sharded run's precision.
        kv_cache_gb: memory for the key-value cache, in GiB, besides the weights.
        max_rows: completions worked on at a time.
        drift_limit: a run ends where vLLM's log-probs are farther from the policy's on average, in
            nats per token. Usual are 1e-6 in float32 and 0.01 in bfloat16. It bounds arithmetic:
            that vLLM took over the weights is compared by their bits, after every update.
    """

    server: str = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    kv_cache_gb: float = 0.5
    max_rows: int = 256
    drift_limit: float = 0.05


class Answer(NamedTuple):
    """One completion: its log-probs are those of the distribution sampled from."""

    token_ids: list[int]
    logprobs: list[float]
    finish: str


@runtime_checkable
class Engine(Protocol):
    """What runs vLLM. A request is a dict of vLLM's sampling parameters."""

    shared: bool  # one engine for all processes of a run
    context: int  # the longest sequence, prompt and completion, in tokens

    def complete(self, prompts: list[list[int]], requests: list[dict]) -> list[list[Answer]]: ...

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None: ...


class LocalEngine:
    """vLLM inside this process, on its device: the policy's weights are handed over in memory.

    It starts from the policy's configuration alone, so that anything it answers comes from weights
    that were handed over. On a GPU it sleeps between calls: its weights wait in the host's memory
    and its cache is dropped. Of several processes each has an engine of its own.
    """

    shared = False

    def __init__(self, model: PreTrainedModel, config: VLLMConfig) -> None:
        vllm = import_vllm()
        self.params_class = vllm.SamplingParams
        self.sleeps = torch.cuda.is_available()
        several = dist.is_initialized() and dist.get_world_size() > 1
        with tempfile.TemporaryDirectory() as folder, _host_state_kept():
            save_config(model, Path(folder))
            try:
                self.llm = vllm.LLM(
                    model=folder,
                    load_format="dummy",
                    dtype=str(model.dtype)[6:] if config.dtype == "auto" else config.dtype,
                    kv_cache_memory_bytes=int(config.kv_cache_gb * 2**30),
                    gpu_memory_utilization=FREE_AT_START,
                    max_num_seqs=config.max_rows,
                    max_model_len=-1,  # what the model can read and the cache can hold
                    enforce_eager=not self.sleeps,
                    enable_sleep_mode=self.sleeps,
                    skip_tokenizer_init=True,
                    logprobs_mode=PROCESSED,
                    generation_config="vllm",
                    disable_log_stats=True,
                    worker_extension_cls=EXTENSION,
                    distributed_executor_backend="external_launcher" if several else "uni",
                )
            except Exception as error:  # any of its parts can fail, each in its own way
                reason = " ".join(str(error).split())[:300]
                raise InputError(
                    f"vLLM did not start ({type(error).__name__}: {reason}); where it ran out of "
                    "memory, lower vllm.kv_cache_gb or vllm.max_rows; where its cache is too "
                    "small, raise vllm.kv_cache_gb; or choose the torch sampler."
                ) from error
        _, self.context = self.llm.collective_rpc("r1lab_about", kwargs={})[0]
        if several:  # at exit vLLM would take down the process group in which the policy trains
            self.llm.llm_engine.engine_core._finalizer.detach()

    def complete(self, prompts: list[list[int]], requests: list[dict]) -> list[list[Answer]]:
        self._wake()
        try:
            outputs = self.llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                [self.params_class(**one) for one in requests],
                use_tqdm=False,
            )
        except Exception as error:  # vLLM's own kinds, and those of what is below it
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"vLLM failed while it sampled ({type(error).__name__}: {reason}); where memory ran "
                "out, lower vllm.max_rows, or choose the torch sampler."
            ) from error
        self._sleep()
        return [
            [
                Answer(
                    list(one.token_ids),
                    [at[token].logprob for token, at in zip(one.token_ids, one.logprobs)],
                    one.finish_reason,
                )
                for one in output.outputs
            ]
            for output in outputs
        ]

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._wake()
        check_update(self.llm.collective_rpc("r1lab_update", kwargs={"weights": weights}))
        check_forgotten(self.llm.reset_prefix_cache())

    def _wake(self) -> None:
        if self.sleeps and self.llm.llm_engine.is_sleeping():
            self.llm.wake_up()

    def _sleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=1)


def check_update(workers: list[list | None]) -> None:
    """Raises InputError where a worker does not hold what it was handed; see `WeightUpdate`."""
    for answer in workers or [None]:
        compared, differ = answer or (0, [])
        if differ or not compared:
            raise InputError(
                f"vLLM did not take over the weights: of {compared} tensors compared, "
                f"{len(differ)} are not as handed over {differ[:3]}; choose the torch sampler."
            )


def check_forgotten(done: bool) -> None:
    """Keys and values of prompts seen before were computed with the old weights: InputError."""
    if not done:
        raise InputError("vLLM is still sampling: load weights between two calls of generate.")


def import_vllm():
    """The module vllm, of the version that is supported, set up for this process.

    It is imported by name and here alone: the rest of r1lab works without it.
    """
    remedy = (
        f"install {VERSION} (on a GPU: pip install -e '.[gpu]'; on a CPU: see make test-vllm), or "
        "choose the torch sampler."
    )
    if find_spec("vllm") is None:
        raise InputError(f"vLLM is not installed: {remedy}")
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ.update({**defaults, **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    try:
        vllm = import_module("vllm")
        found = vllm.__version__.split("+")[0]
        vllm.LLM, vllm.SamplingParams  # noqa: B018 - vllm imports these when they are asked for
    except Exception as error:  # a build for another device fails in a dozen ways
        raise InputError(f"vLLM cannot be imported ({error}): {remedy}") from error
    if found != VERSION:
        raise InputError(f"this is vLLM {found}, of which r1lab knows nothing: {remedy}")
    return vllm


def save_config(model: PreTrainedModel, folder: Path) -> None:
    """config.json alone, which names the architecture."""
    config = copy.deepcopy(model.config)
    config.architectures = config.architectures or [type(model).__name__]
    config.save_pretrained(folder)


@contextmanager
def _host_state_kept() -> Iterator[None]:
    """vLLM seeds torch's generators, and on a CPU it disables torch.set_num_threads."""
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)


class ServerEngine:
    """vLLM in processes of its own, on other GPUs or machines, over HTTP."""

    shared = True

    def __init__(self, model: PreTrainedModel, config: VLLMConfig) -> None:
        self.url, self.threads = config.server.rstrip("/"), config.max_rows
        command = " ".join(server_command("FOLDER-OF-THE-MODEL"))
        self.remedy = f"start one of vLLM {VERSION} with: VLLM_SERVER_DEV_MODE=1 {command}"
        found = str(self._ask("version").get("version"))
        if found.split("+")[0] != VERSION:
            raise InputError(f"the server at {self.url} is of vLLM {found}; {self.remedy}")
        about = self._ask("collective_rpc", {"method": "r1lab_about"})["results"]
        mode, self.context = about[0]
        if mode != PROCESSED:
            raise InputError(f"the vLLM server at {self.url} reports {mode}; {self.remedy}")

    def complete(self, prompts: list[list[int]], requests: list[dict]) -> list[list[Answer]]:
        with ThreadPoolExecutor(max(1, min(len(prompts), self.threads))) as pool:
            return list(pool.map(self._answer, prompts, requests))

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            save_file({name: w.detach().cpu().contiguous() for name, w in weights}, path)
            body = {"method": "r1lab_update", "kwargs": {"path": str(path)}}
            check_update(self._ask("collective_rpc", body)["results"])
        check_forgotten(self._ask("reset_prefix_cache", {})["success"])

    def _answer(self, prompt: list[int], request: dict) -> list[Answer]:
        body = {"token_ids": prompt, "sampling_params": request}
        choices = self._ask("inference/v1/generate", body)["choices"]
        return [
            Answer(
                choice["token_ids"],
                [token["logprob"] for token in choice["logprobs"]["content"]],
                choice["finish_reason"],
            )
            for choice in sorted(choices, key=lambda choice: choice["index"])
        ]

    def _ask(self, path: str, body: dict | None = None) -> dict:
        """GET without a body, else POST; InputError with the server's own words if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        try:
            with urlopen(Request(f"{self.url}/{path}", data, headers), timeout=3600) as reply:
                return json.loads(reply.read() or b"{}")
        except HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            raise InputError(
                f"the vLLM server refused {self.url}/{path} ({error.code} {said}); {self.remedy}"
            ) from error
        except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
            raise InputError(
                f"no vLLM server answers at {self.url} ({error}); {self.remedy}"
            ) from error


def server_command(model: str, host: str = "127.0.0.1", port: int = 8000) -> list[str]:
    """The command of a server that `VLLMConfig.server` can name.

    It also needs VLLM_SERVER_DEV_MODE=1 in its environment, for the routes that take new weights.
    They let anyone who reaches them run vLLM's methods: `host` must be a private address.
    """
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--host", host, "--port", str(port), "--tokens-only", "--logprobs-mode", PROCESSED,
        "--generation-config", "vllm", "--worker-extension-cls", EXTENSION,
    ]  # fmt: skip
