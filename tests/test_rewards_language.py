"""The language-consistency reward: the paper's share of words, in the small world and beyond."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.rewards import RewardSet, count_languages, language, parse, random as coin, validate
from r1lab.rewards.languages import LANGUAGES
from r1lab.task import Problem
from r1lab.world import sample_problem
from r1lab.world.words import LANGS, WORDS_BY_LANG
from tests.small_run import reward_set

DATA = Path(__file__).parent.parent / "data"
EN = (
    "Let me first compute the sum of the ten terms. The first term is three and the difference is "
    "five, so the last one is forty-eight. Wait, let me check that again: yes, it is right."
)
ZH = "首先我们求前十项的和。首项是三，公差是五，所以末项是四十八。等一下，再验算一遍：没有错。"
REAL = {
    "en": EN,
    "zh": ZH,
    "fr": "Cherchons d'abord la somme des dix premiers termes. Le premier terme est égal à trois et "
    "la raison vaut cinq, donc le dernier est quarante-huit. Attends, vérifions encore une fois.",
    "de": "Zuerst berechnen wir die Summe der ersten zehn Glieder. Das erste Glied ist drei und die "
    "Differenz beträgt fünf. Warte, prüfen wir das noch einmal: es stimmt.",
    "es": "Primero calculamos la suma de los diez primeros términos. El primer término es tres y la "
    "diferencia es cinco. Espera, comprobemos otra vez el cálculo: es correcto.",
    "ru": "Сначала найдём сумму первых десяти членов прогрессии. Первый член равен трём, разность "
    "равна пяти. Подождём и проверим это ещё раз: всё верно.",
}


def share(text: str, lang: str | None) -> float | None:
    completion = f"<think> {text} </think> <answer> 9 </answer>"
    return language(prompts=["p"], completions=[completion], lang=[lang])[0]


@pytest.mark.parametrize(("text", "lang", "expected"), [
    ("9+5=14:13 no wait 9-5=4:13 no", "en", 1.0),
    ("9+5=14:13 no wait 9-5=4:13 no", "zh", 0.0),
    ("9+5=14:13不wait 9-5=4:13 no 等9+4=13:13对", "zh", 3 / 5),
    ("9+5=14:13不wait 9-5=4:13 no 等9+4=13:13对", "en", 2 / 5),
    ("9+5=14:13 non attends 9+4=13:13 ok", "fr", 2 / 3),
    ("9+5=14:13", "en", 0.0),  # no words: nothing to pay for
    ("", "zh", 0.0),
    (r"我们设 x = 3, \frac{y}{\sqrt{2}} = z", "zh", 1.0),  # letters and notation are no words
    ("9+5=14:13 ok", None, None),
])  # fmt: skip
def test_the_paper_formula_in_the_small_world(text, lang, expected):
    assert share(text, lang) == (None if expected is None else pytest.approx(expected))


def test_only_the_thinking_counts():
    completions = ["<think> no </think> 对对对 <answer> 对 </answer>", "对 no <answer> no no"]
    scores = language(prompts=["p"] * 2, completions=completions, lang=["en", "zh"])
    assert scores == [1.0, 0.5]


@given(st.lists(st.sampled_from([(w, k) for k in LANGS for w in sorted(WORDS_BY_LANG[k])])))
def test_shares_are_of_all_listed_words_in_any_order(pairs):
    text = " 9+5=14 ".join(word for word, _ in pairs)
    shares = {lang: share(text, lang) for lang in LANGS}
    for lang in LANGS:
        assert shares[lang] == pytest.approx(sum(k == lang for _, k in pairs) / max(1, len(pairs)))
    assert len(count_languages(parse(text).thinking)) == sum(value > 0 for value in shares.values())


def test_no_listed_word_belongs_to_two_languages():
    listed = [word for words in WORDS_BY_LANG.values() for word in words]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("lang", REAL)
def test_real_text_keeps_to_its_own_language(lang):
    assert {other: share(REAL[lang], other) == 1.0 for other in REAL} == {
        other: other == lang for other in REAL
    }


def test_mixed_real_text_is_paid_by_its_share():
    both = share(f"{EN} {ZH}", "en"), share(f"{EN} {ZH}", "zh")
    assert sum(both) == pytest.approx(1) and 0.3 < both[0] < 0.7
    french = share(f"{EN} {REAL['fr']} {EN}", "en")
    assert 0.5 < french < 0.75, "two thirds of it are English"
    assert share(f"{ZH} 所以 therefore 答案", "zh") < 1


def test_english_problems_are_english():
    counts = sum(
        (count_languages(json.loads(line)["prompt"].lower())
         for line in (DATA / "test_gym_gsm.jsonl").read_text(encoding="utf-8").splitlines()),
        count_languages(""),
    )  # fmt: skip
    assert counts.total() > 2000 and counts["en"] / counts.total() > 0.99


def test_too_few_words_tell_no_language():
    assert count_languages("the sum is") == {"": 3} and share("the sum is", "en") == 0.0
    assert count_languages("the sum is nine") == {"en": 4}


def test_the_thinking_ends_at_its_tag_or_at_the_answer():
    assert parse("<think> No </think> wait").thinking == "No"
    assert parse("no <answer> ok </answer>").thinking == "no"
    assert parse("NO wait").thinking == "NO wait"
    assert count_languages("NO wait") == count_languages("no wait")


def test_an_unknown_language_is_named():
    with pytest.raises(InputError, match="no language .* 'xx'; .* en, zh, fr"):
        language(prompts=["p"], completions=["ok"], lang=["xx"])
    with pytest.raises(InputError, match="'language' failed"):
        RewardSet({"language": (language, 1.0)})(["p"], ["ok"], solution=["5"])


def test_it_is_added_to_the_other_rewards_with_its_weight():
    rows = {
        "prompts": ["p"] * 2,
        "completions": ["<think> ok </think> <answer> 5 </answer>"] * 2,
        "solution": ["5"] * 2,
        "lang": ["en", "zh"],
    }
    totals, parts = reward_set("true", 1.0, 0.5, language_weight=0.25)(**rows)
    assert parts["language"] == [1.0, 0.0] and totals == [1.75, 1.5]
    totals, parts = reward_set("format", language_weight=0.0)(**rows)
    assert parts["language"] == [1.0, 0.0] and totals == [1.0, 1.0]
    assert "language" not in reward_set().rewards


@pytest.mark.parametrize("lang", LANGS)
def test_validation_accepts_gold_answers_in_every_language(lang):
    problem = sample_problem(random.Random(0), "signs", 2, lang)
    validate(reward_set("true", language_weight=1.0), [problem])


def test_validation_beyond_the_small_world_thinks_in_the_words_of_the_question():
    problem = Problem("q1", "", 1, "de", "Wie viele Äpfel hat Anna am Ende noch?", "5")
    rewards = RewardSet({"language": (language, 1.0), "coin": (coin, 1.0)})
    validate(rewards, [problem])
    with pytest.raises(InputError, match="'language' does not accept"):
        validate(rewards, [Problem("q2", "", 1, "ru", "How many apples are left?", "5")])
    assert "de" in LANGUAGES
