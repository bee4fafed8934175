"""The contract of every sampler: `SamplingParams` in, `Rollouts` out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from r1lab.errors import InputError

LARGEST_KEY = 2**64 - 1  # seeds and stream ids are 64-bit keys of a counter-based generator


@dataclass(frozen=True)
class SamplingParams:
    """How to sample, under vLLM's names.

    `temperature` 0 is greedy decoding; `top_p` 1 and `top_k` 0 switch those filters off. `seed` and
    the stream id of a prompt together decide its samples. Raises InputError for a value outside
    its range.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.n >= 1, f"n={self.n}: ask for at least 1 completion per prompt")
        _require(
            0 <= self.temperature < float("inf"),
            f"temperature={self.temperature}: give 0 (greedy) or a positive number",
        )
        _require(0 < self.top_p <= 1, f"top_p={self.top_p}: give a number in (0, 1]; 1 is off")
        _require(self.top_k >= 0, f"top_k={self.top_k}: give 0 (off) or a positive number")
        _require(self.max_tokens >= 1, f"max_tokens={self.max_tokens}: give at least 1")
        _require(0 <= self.seed <= LARGEST_KEY, f"seed={self.seed}: give a number from 0 to 2^64-1")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def stream_id(step: int, question: int) -> int:
    """The 64-bit stream of one question at one step: the same on every rank and in every batch.

    `step` and `question` (its place in the data set) must each fit in 32 bits, or InputError.
    """
    _require(
        0 <= step < 2**32 and 0 <= question < 2**32,
        f"stream_id(step={step}, question={question}): both must lie from 0 to 2^32-1",
    )
    return step << 32 | question


Finish = Literal["stop", "length"]


def completion_text(ids: Sequence[int], finish: Finish, tokenizer) -> str:
    """Decode a completion without the end token that stopped it, whichever of the model's it is.

    Tags such as <think> are ordinary text.
    """
    return tokenizer.decode(ids[:-1] if finish == "stop" else ids)


@dataclass(frozen=True)
class Rollouts:
    """n completions for each of B prompts, as B*n entries in each list, group after group.

    Entry i answers prompt i // n. Nothing is padded. `completion_ids` includes the end token when
    `finish` is "stop". `logprobs` (nats, float32) are those of the distribution really sampled
    from; `log_kept` (nats, float32) is the log of the probability that top-k and top-p left, 0
    where they are off, NaN where the sampler does not report it. At temperature 0 the distribution
    has all its mass on the likeliest token, so `logprobs` is 0 and `log_kept` the token's
    log-probability at temperature 1.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    logprobs: list[Float[Tensor, " tokens"]]
    log_kept: list[Float[Tensor, " tokens"]]
    finish: list[Finish]
    weights_version: int

    def __len__(self) -> int:
        return len(self.completion_ids)

    def texts(self, tokenizer) -> list[str]:
        """Decode all completions: see `completion_text`."""
        ended = zip(self.completion_ids, self.finish, strict=True)
        return [completion_text(ids, finish, tokenizer) for ids, finish in ended]

    @property
    def scorer_logps(self) -> list[Float[Tensor, " tokens"]]:
        """What a scorer must find: log_softmax(logits / temperature) at the sampled tokens.

        Raises InputError where the sampler did not report `log_kept`, which is then NaN.
        """
        if any(kept.isnan().any() for kept in self.log_kept):
            raise InputError(
                "this sampler does not report what top-p or top-k left of the mass, so its samples "
                "cannot be trained on: set top_p=1 and top_k=0."
            )
        return [sampled + kept for sampled, kept in zip(self.logprobs, self.log_kept, strict=True)]


@runtime_checkable
class Sampler(Protocol):
    """Anything that answers prompts with the weights it was last given."""

    weights_version: int

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        stream_ids: Sequence[int] | None = None,
    ) -> Rollouts:
        """Sample `params.n` completions of each prompt.

        Completion j of a prompt depends on (params.seed, the prompt's stream id, j) alone, never on
        its neighbours; without `stream_ids` a prompt's position is its stream id. A sampler that
        has the keyword `on_done` calls on_done(place in the Rollouts, token ids, finish) for each
        completion as soon as it ends, while others are still drawn, so that grading can begin.
        """
        ...

    def load_weights(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights and count `weights_version` up by one."""
        ...
