"""How a completion is read. Every reward, check and measure reads it here."""

import re
from dataclasses import dataclass

TAGS = re.compile("(</?(?:think|answer)>)")
FORMAT = ["<think>", "</think>", "<answer>", "</answer>"]
HALVES = re.compile(
    r"(?:<think>)?([^<]*)(?:</think>\s*<answer>|</think>|<answer>)([^<]*)(?:</answer>)?"
)
DOUBT = re.compile(
    r"\b(?:not|never|maybe|perhaps|probably|possibly|likely|approximately|about|roughly|nearly|"
    r"almost|guess|might|could|either|or|wrong|incorrect)\b|n['’]t", re.IGNORECASE
)  # fmt: skip


@dataclass(frozen=True)
class Parsed:
    r"""What a completion says.

    Attributes:
        thinking: what comes before the first `</think>` or `<answer>`; all of it where neither is.
        answer: the strict reading, which rewards pay for: the text of the one final `<answer>`;
            where there is no answer tag, of the one `\boxed{}` that ends the completion without a
            word of doubt in its sentence. None: there is no single final answer.
        boxed: what each `\boxed{}` holds, in the order in which they close.
        finished: does the thinking end?
        well_formed: is this `<think>…</think> <answer>…</answer>`: each tag once, in this order,
            nothing but white space outside, the answer not empty?
        text: all of it.
        final: what comes after the last `</think>`; all of it where there is none.
        has_answer_tag: is there an answer tag, opening or closing?
    """

    thinking: str
    answer: str | None
    boxed: tuple[str, ...]
    finished: bool
    well_formed: bool
    text: str
    final: str
    has_answer_tag: bool

    @property
    def lenient_answer(self) -> str:
        r"""The answer, however it is marked: the last `<answer>`, closed or not; else the last
        `\boxed{}`; else the last expression (or the whole) of the last line after `</think>`."""
        _, opened, rest = self.text.rpartition("<answer>")
        if opened and (answer := rest.partition("</answer>")[0].strip()):
            return answer
        if self.boxed:
            return self.boxed[-1].strip()
        final = next((part for part in self.text.split("</think>")[::-1] if part.strip()), "")
        lines = re.sub(r"</?\w+>", "\n", final).strip().splitlines() or [""]
        return last_expression(lines[-1].strip())

    @property
    def halves(self) -> tuple[str, str] | None:
        """(thinking, answer), none of them empty; None where no tag divides them, or too many do."""
        match = HALVES.fullmatch(self.text.strip())
        thinking, answer = (half.strip() for half in match.groups()) if match else ("", "")
        return (thinking, answer) if thinking and answer else None


def text_of(message: str | list[dict[str, str]]) -> str:
    """The text of a prompt or completion, also in TRL's conversational form (its last message)."""
    return message if isinstance(message, str) else message[-1]["content"]


def parse(completion: str | list[dict[str, str]], prompt: str = "") -> Parsed:
    """Read a completion, a text or TRL's messages. `prompt` is what it continues."""
    text = text_of(completion)
    thinking, *rest = re.split("</think>|<answer>", text.replace("<think>", " "), maxsplit=1)
    final = text.rpartition("</think>")[2]
    pieces = TAGS.split(text)
    outside = "".join(pieces[::4])
    _, *tagged = re.split("(</?answer>)", text)
    answer = _tagged_answer(tagged) if tagged else _boxed_answer(final)
    return Parsed(
        thinking=thinking.strip(),
        answer=answer,
        boxed=tuple(text[start:end] for start, end in _boxes(text)),
        finished=bool(rest),
        well_formed=pieces[1::2] == FORMAT and answer is not None and not outside.strip(),
        text=text,
        final=final,
        has_answer_tag=bool(tagged),
    )


def _tagged_answer(pieces: list[str]) -> str | None:
    """What is in the one answer tag, if nothing follows it. `pieces`: tags and what follows each."""
    if pieces[::2] != ["<answer>", "</answer>"] or pieces[-1].strip():
        return None
    return pieces[1].strip() or None


def _boxed_answer(final: str) -> str | None:
    """What is in the one box that ends the text without doubt."""
    spans = _boxes(final)
    if "<think>" in final or len({final[start:end] for start, end in spans}) != 1:
        return None
    start, end = spans[-1]
    sentence = re.split(r"[.!?]\s|\n\n", final[:start])[-1]
    after = re.sub("i hope it is correct", "", final[end:], flags=re.IGNORECASE)
    if DOUBT.search(sentence) or re.search(r"[^\s.$)}\]\\*]", after):
        return None
    return final[start:end].strip() or None


def _boxes(text: str) -> list[tuple[int, int]]:
    r"""Where the contents of each `\boxed{...}` start and end, unclosed ones at the text's end."""
    spans, opened = [], []
    for match in re.finditer(r"\\boxed\s*\{|[{}]", text):
        if match[0] != "}":
            opened.append(match)
        elif opened and (start := opened.pop())[0] != "{":
            spans.append((start.end(), match.start()))
    return spans + [(start.end(), len(text)) for start in opened if start[0] != "{"]


def last_expression(line: str) -> str:
    """The last formula of a line, or else its last expression with a digit, or else all of it."""
    formulas = re.findall(r"\$([^$]+)\$", line)
    runs = re.findall(r"(?:[-+*/^().,\d\s{}]|\\[a-z]+|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z]))+", line)
    runs = [run.strip(" .,") for run in runs if re.search(r"\d", run)]
    return (formulas or runs or [line])[-1]
