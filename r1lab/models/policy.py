"""The policy: any Hugging Face causal language model, scored at the tokens it produced."""

import json
from collections.abc import Iterable
from contextlib import nullcontext
from inspect import signature
from pathlib import Path

import torch
import transformers
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from r1lab.errors import InputError, reason
from r1lab.kernels import LogProbs, linear_logprob
from r1lab.models.cpu_linear import speed_up_linear_layers
from r1lab.models.lora import LoRA, adapted, add_adapter, merge, read_adapter, write_adapter
from r1lab.models.places import adapter_at, base_of, source_of

WORD_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
# transformers 5 gives every model of type qwen2 Qwen2's byte-level tokenizer, whatever the class in
# tokenizer_config.json, except where an entry for code is there. The code is never asked for: only
# trust_remote_code=True would look for it, and fail by this name.
AS_STORED = {"AutoTokenizer": [None, "leave_out_trust_remote_code.PreTrainedTokenizerFast"]}


class Policy(nn.Module):
    """A causal language model that returns log-probs of completions instead of logits.

    Products are computed in `precision`, by autocast where that is not float32.

    Raises:
        InputError: the model's head has a bias or a soft-cap, which `linear_logprob` cannot fuse.
    """

    precision = torch.float32

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        speed_up_linear_layers(model)
        head = model.get_output_embeddings()
        capped = getattr(model.config, "final_logit_softcapping", None)
        if capped or getattr(head, "bias", None) is not None:
            raise InputError(
                "this model's output head has a bias or soft-caps its logits; use another model."
            )
        self.model = model

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        completion_mask: Bool[Tensor, "batch seq"],
        temperature: float = 1.0,
        packed: bool = False,
        shared: bool = False,
    ) -> LogProbs:
        """Log-prob and entropy of every completion token, fp32 [batch, completion].

        Args:
            ids: prompt and completion of each row without a gap, padded on the right. Causal
                attention never looks right, so that padding needs no attention mask.
            completion_mask: True at the completion's tokens. Column j of the result is the
                row's j-th completion token; columns after its last are 0.
            packed: the model reads the rows as one line without padding. Same results.
            shared: the model reads a prompt once for all rows after each other that begin with it,
                each of which has a completion. Same results; see `refuse_sharing`.
        """
        at, inside = completion_columns(completion_mask)
        chosen = ids.gather(1, at)
        before = (at - 1).clamp(min=0)  # the state after token t-1 predicts token t
        single = self.precision == torch.float32
        with nullcontext() if single else torch.autocast(ids.device.type, self.precision):
            if shared:
                states = self._states_of_groups(ids, completion_mask)
            else:
                hidden = self._states_of_rows(ids, completion_mask, packed)
                states = hidden.gather(1, before[..., None].expand(-1, -1, hidden.shape[-1]))
            return linear_logprob(
                states, self.model.get_output_embeddings().weight, chosen,
                temperature=temperature, mask=inside, return_entropy=True,
            )  # fmt: skip

    def _states_of_rows(self, ids, completion_mask, packed):
        """Hidden states [batch, seq, hidden] of every row of ids and mask, both [batch, seq].

        Where they are packed, up to each row's last completion token, and zeros after it.

        Positions start at 0 in each row. Without an attention mask, the model takes that for the
        start of a document, and no token attends to another document's.
        """
        if not packed:
            return self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        last = torch.where(completion_mask, places, 0).amax(1, keepdim=True)
        real = places <= last
        line = self.model.get_decoder()(
            input_ids=ids[real][None], position_ids=places[real][None], use_cache=False
        ).last_hidden_state[0]
        rows = line.new_zeros(*ids.shape, line.shape[-1])
        return rows.masked_scatter(real[..., None], line)

    def _states_of_groups(self, ids, completion_mask):
        """Hidden states [batch, completion, hidden] that predict the completion tokens.

        Each prompt is read once, though ids and mask, both [batch, seq], hold it in every row.

        The completions of a prompt follow it in one row. The positions of each go on after the
        prompt, and a token sees the prompt and the tokens before it in its own completion.
        """
        prompt, lines, before = None, [], []  # of the lines' tokens: id, position, 0 or answer's number
        for row, mask in zip(ids.tolist(), completion_mask.tolist()):
            start, count = mask.index(True), sum(mask)
            if row[:start] != prompt:
                prompt, answer = row[:start], 0
                lines.append([(token, place, 0) for place, token in enumerate(prompt)])
            at, answer = len(lines[-1]), answer + 1
            lines[-1] += [(row[place], place, answer) for place in range(start, start + count)]
            places = [start - 1, *range(at, at + count - 1)]
            before.append([(len(lines) - 1, place) for place in places])
        tokens, positions, answer = _padded(lines).to(ids.device).unbind(2)
        sees = ((answer[:, None] == 0) | (answer[:, None] == answer[:, :, None])).tril()[:, None]
        if self.model.config._attn_implementation == "eager":  # which adds its mask
            kind = self.model.dtype
            sees = torch.zeros_like(sees, dtype=kind).masked_fill(~sees, torch.finfo(kind).min)
        hidden = self.model.get_decoder()(
            input_ids=tokens, attention_mask=sees, position_ids=positions, use_cache=False
        ).last_hidden_state
        line, place = _padded(before).to(ids.device).unbind(2)
        return hidden[line, place]


def _padded(rows):
    """Put rows of numbers into one tensor [rows, longest, numbers], with zeros behind."""
    return pad_sequence([torch.tensor(row) for row in rows], True)


def refuse_sharing(model: PreTrainedModel):
    """Refuse a model that cannot read several completions after their prompt as if each were alone.

    Raises InputError.
    """
    windows = {*(getattr(model.config, "layer_types", None) or ())} - {"full_attention"}
    placed = "position_ids" in signature(model.forward).parameters
    if windows or not placed or model.config._attn_implementation not in ("sdpa", "eager"):
        raise InputError(
            f"share_prompts needs attention over all tokens by sdpa or eager, which {type(model).__name__} "
            "does not have here; switch share_prompts off."
        )


def completion_columns(
    completion_mask: Bool[Tensor, "batch seq"],
) -> tuple[Int[Tensor, "batch completion"], Bool[Tensor, "batch completion"]]:
    """Where in the sequence each completion token stands, and which columns are real tokens."""
    counts = completion_mask.sum(1)
    start = completion_mask.int().argmax(1)
    columns = torch.arange(int(counts.max()), device=completion_mask.device)
    at = (start[:, None] + columns).clamp(max=completion_mask.shape[1] - 1)
    return at, columns < counts[:, None]


def load_model(
    path: str | Path, dtype: torch.dtype = torch.float32, kind: type = AutoModelForCausalLM,
    merged: bool = True,
):  # fmt: skip
    """(model, tokenizer), checked to fit each other.

    Args:
        path: a folder, a run's folder (its last checkpoint is meant), a Hub id, a .gguf file (its
            weights are dequantised) or "smollm2"; or the folder of a LoRA adapter, read with its base.
        kind: the class that reads the model.
        merged: an adapter becomes part of the weights; False keeps it apart, to be trained further.

    Raises:
        InputError: missing, damaged, or the tokenizer has ids that the model has no embedding for.
    """
    if adapter := adapter_at(path):
        model, tokenizer = load_model(base_of(adapter), dtype, kind)
        read_adapter(model, adapter)
        return merge(model) if merged else model, tokenizer
    source = source_of(path)
    tokenizer = load_tokenizer(path, source)
    options = {"dtype": dtype}
    # transformers knew no other way before it had this class, and now keeps the 4 bits where it
    # finds a kernel for them; such a model can be neither trained nor saved.
    if "gguf_file" in source and hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = read_part(kind, path, source | options)
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise InputError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens but the model only {embeddings} "
            "embeddings; they do not belong together."
        )
    return model, tokenizer


def load_start(model: str | Path, lora: LoRA | None, seed: int, checkpoint: Path | None = None):
    """(model, tokenizer) of a run: as its checkpoint has it, or fresh, where asked with an adapter."""
    loaded, tokenizer = load_model(checkpoint or model, merged=not checkpoint)
    if lora and not checkpoint:
        add_adapter(loaded, lora, model, seed)
    return loaded, tokenizer


def load_tokenizer(path: str | Path, source: dict | None = None):
    """The tokenizer of a model, without its weights. Raises InputError as `load_model`."""
    source, kind = source or source_of(path), AutoTokenizer
    config = Path(source["pretrained_model_name_or_path"], "tokenizer_config.json")
    # A folder whose own tokenizer.json is complete: saved before `save_model` marked it, or by others.
    if config.is_file() and json.loads(config.read_text()).get("tokenizer_class") in WORD_CLASSES:
        kind = PreTrainedTokenizerFast
    tokenizer = read_part(kind, path, source)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{path}: the tokenizer has no end token, so no answer could ever end.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_part(kind: type, path: str | Path, source: dict):
    """Read one part of a model. Raises InputError where that fails, with the first line of why."""
    try:
        return kind.from_pretrained(**source)
    except Exception as error:  # the libraries below raise a dozen kinds for a damaged file
        why = reason(error)
        if source.get("local_files_only"):
            why = "no folder has this name, and the Hub has no such model or is out of reach"
        raise InputError(
            f"{path}: the model cannot be loaded ({why}); check the "
            "folder, or the Hub name and the network."
        ) from error


def refuse_unknown_words(prompts: Iterable[str], tokenizer, model: str | Path):
    """Refuse questions with words that the model has no token for.

    A tokenizer without an unknown token spells every word; one that cannot say where its tokens
    come from is not asked.

    Raises:
        InputError: the words are named.
    """
    if tokenizer.unk_token_id is None or not tokenizer.is_fast:
        return
    words = {}  # in the order in which they are found
    for prompt in prompts:
        read = tokenizer(prompt, return_offsets_mapping=True)
        for token, (start, end) in zip(read.input_ids, read.offset_mapping):
            if token == tokenizer.unk_token_id:
                words[prompt[start:end]] = None
    words.pop(tokenizer.unk_token, None)  # a question may write the token itself
    if words:
        raise InputError(
            f"the questions hold words that {model} does not know ({', '.join([*words][:8])}); ask "
            "in its words, or take a model that knows them."
        )


def save_model(model: PreTrainedModel, tokenizer, folder: Path, **options):
    """Write both in Hugging Face's format, for `AutoTokenizer` and the model's auto class; of a model
    with an adapter, the adapter alone.

    `options` are those of the model's `save_pretrained`."""
    if type(tokenizer) is PreTrainedTokenizerFast and model.config.model_type.startswith("qwen"):
        tokenizer.init_kwargs["auto_map"] = AS_STORED
    write = write_adapter if adapted(model) else type(model).save_pretrained
    write(model, folder, **options)
    tokenizer.save_pretrained(folder)


def load_policy(path: str | Path):
    """(Policy, tokenizer) from a folder or a Hub id."""
    model, tokenizer = load_model(path)
    return Policy(model), tokenizer
