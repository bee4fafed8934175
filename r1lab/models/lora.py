"""Low-rank adapters: a few weights beside each frozen linear layer are trained in place of its own.

LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3): W x becomes W x + (alpha / rank) B A x. B starts at 0,
so that training starts at the base model itself. The layers and the files are PEFT's; the model stays
the Hugging Face model that it was, with such layers in it.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from r1lab.errors import InputError, reason
from r1lab.models.places import local_model

EVERY = ("all-linear",)  # PEFT's word for every linear layer but the head
PREFIX = "base_model.model."  # before each name in PEFT's file
ADAPTER, TRAINED = ".lora_", "default"  # in the names of an adapter's weights; PEFT's name of the one


@dataclass(frozen=True)
class LoRA:
    """How large an adapter is, and where.

    Attributes:
        rank: of the change to each layer's weights: rows of A and columns of B.
        alpha: the change is scaled by alpha / rank.
        targets: the ends of layers' names, as ("q_proj", "v_proj"); by default every linear layer but
            the head.
    Raises:
        InputError: a value outside its range, or PEFT is not installed.
    """

    rank: int = 8
    alpha: int | float = 16
    targets: Sequence[str] = EVERY

    def __post_init__(self):
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", targets)
        if self.rank < 1 or not self.alpha > 0 or not targets:
            raise InputError(
                f"LoRA with rank {self.rank}, alpha {self.alpha:g} and {len(targets)} targets changes "
                "nothing; give a rank of at least 1, an alpha above 0 and a target, or leave LoRA out "
                "to train all weights."
            )
        need_peft()

    @classmethod
    def from_words(cls, words: list[str]) -> "LoRA | None":
        """Read RANK ALPHA LAYER ... from the command line, of which the first alone will do."""
        if not words:
            return None
        rank, alpha, *targets = words if len(words) > 1 else [*words, cls.alpha]
        return cls(int(rank), float(alpha), tuple(targets) or EVERY)


MaybeLoRA = Annotated[
    LoRA | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[RANK [ALPHA [LAYER ...]]]",
        instance_from_str=LoRA.from_words,
        is_instance=lambda value: isinstance(value, LoRA | None),
        str_from_instance=lambda lora: [str(lora.rank), str(lora.alpha), *lora.targets] if lora else [],
    ),
]


def need_peft():
    """Raise InputError where PEFT is not installed."""
    if find_spec("peft") is None:
        raise InputError("LoRA needs the package peft, which is not installed: pip install 'r1lab[lora]'.")


def add_adapter(model: PreTrainedModel, lora: LoRA, base: str | Path, seed: int):
    """Put a fresh adapter into a model, whose own weights are frozen from then on.

    Args:
        base: where the model is, for the adapter's file.
        seed: of A's random values; torch's generator is left as it was.
    Raises:
        InputError: a target is the end of no linear layer's name.
    """
    from peft import LoraConfig  # takes a second to import

    body, head = model.get_decoder(), model.get_output_embeddings()
    layers = [name for name, one in body.named_modules() if isinstance(one, nn.Linear) and one is not head]
    ends = sorted({name.rpartition(".")[2] for name in layers})
    targets = ends if lora.targets == EVERY else list(lora.targets)
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise InputError(
                f"LoRA's target {target!r} is the end of no linear layer's name in {base}; choose of "
                f"{', '.join(ends)}."
            )
    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(settings, TRAINED)
    place = local_model(base)
    of_run = place and place.parent.name == "checkpoints"  # a run may go on and have another one then
    model.peft_config[TRAINED].base_model_name_or_path = str(place if of_run else base)


def read_adapter(model: PreTrainedModel, folder: Path):
    """Put a stored adapter into its base, ready to be trained further.

    Raises:
        InputError: it cannot be read, or belongs to another model.
    """
    need_peft()
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict

    try:
        settings = PeftConfig.from_pretrained(str(folder))
        settings.inference_mode, base = False, settings.base_model_name_or_path
        model.add_adapter(settings, TRAINED)
        weights = load_peft_weights(str(folder), device="cpu")
        named = {name.removeprefix(PREFIX): value for name, value in weights.items()}
        loaded = set_peft_model_state_dict(model, named, TRAINED)
        wrong = [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if ADAPTER in name)]
        why = f"{len(wrong)} of its weights belong to other layers" * bool(wrong)
    except Exception as error:  # PEFT raises many kinds for a damaged file or another shape
        why = reason(error)
    if why:
        raise InputError(
            f"{folder}: this adapter does not fit {model.name_or_path} ({why}); adapter_config.json names "
            "its base: put the right one there, or use another adapter."
        )
    model.peft_config[TRAINED].base_model_name_or_path = base  # transformers writes its own


def write_adapter(model: PreTrainedModel, folder: Path, state_dict: Mapping | None = None):
    """Write the model's adapter in PEFT's format; `state_dict`: the model's weights, where it has shares."""
    from peft import get_peft_model_state_dict

    named = get_peft_model_state_dict(model, state_dict, TRAINED, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{PREFIX}{name}": value.contiguous() for name, value in named.items()}
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    model.peft_config[TRAINED].save_pretrained(str(folder))


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Add the adapter to the model's weights, and take its layers out; returns the plain model."""
    for layer in adapted(model).values():
        layer.merge()
    return without_adapter(model)


def adapted(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that have an adapter, by name."""
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """Take the layers of an adapter out of a model."""
    for name, layer in adapted(model).items():
        model.set_submodule(name, layer.base_layer)
    model._hf_peft_config_loaded = False  # else it would be saved as an adapter
    del model.peft_config
    return model


def plain_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or a copy of it without its adapter, to be given merged weights."""
    return without_adapter(copy.deepcopy(model)) if adapted(model) else model


def merged(
    parameters: Iterable[tuple[str, Tensor]], lora: LoRA | None
) -> Iterator[tuple[str, Tensor]]:
    """Names and values of a model's parameters with the adapter's added to them, as the plain model has.

    Args:
        parameters: of the model with the adapter; of a layer, first its own weights, then A, then B.
    """
    for name, value in parameters:
        plain = name.replace(".base_layer.", ".")
        if ".lora_A." in name:
            down = value
        elif ".lora_B." in name:
            change = (value.detach() @ down.detach()) * (lora.alpha / lora.rank)
            yield layer, weight + change.to(weight)
        elif name.endswith(".base_layer.weight"):
            layer, weight = plain, value.detach()
        else:
            yield plain, value


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What a run changes: the adapter's parameters where there is one, else all."""
    named = dict(module.named_parameters())
    return {name: value for name, value in named.items() if ADAPTER in name} or named


def sharing_copy(module: nn.Module) -> nn.Module:
    """A frozen copy that shares the module's frozen weights: of a policy with an adapter, the adapter
    alone is copied."""
    shared = {id(value): value for value in module.parameters() if not value.requires_grad}
    return copy.deepcopy(module, shared).requires_grad_(False)
