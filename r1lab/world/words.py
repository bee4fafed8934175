"""The words of the small world, by language and by what they do.

English and Chinese are the two main languages; French is the rare third one. Chinese words are
single real characters, so that one attempt costs the same number of tokens in every language.
"""

LANGS = ("en", "zh", "fr")

OK = {"en": "ok", "zh": "对", "fr": "oui"}
NO = {"en": "no", "zh": "不", "fr": "non"}

# What starts another attempt after a "no", with its share in the corpus. The English words are
# from the list of the paper (v2, C.2).
REFLECTIVE_SHARES = {
    "en": {"wait": 0.6, "but": 0.15, "however": 0.1, "retry": 0.15},
    "zh": {"等": 0.6, "但": 0.15, "然": 0.1, "再": 0.15},
    "fr": {"attends": 0.6, "mais": 0.15, "pourtant": 0.1, "encore": 0.15},
}
REFLECTIVE = {lang: frozenset(shares) for lang, shares in REFLECTIVE_SHARES.items()}

# The words that thinking is made of; what language a completion is in is read from these.
WORDS_BY_LANG = {lang: frozenset({OK[lang], NO[lang]}) | REFLECTIVE[lang] for lang in LANGS}

LOGIC_WORDS = "true false and or not".split()
PROGRAM_WORDS = "def f x return if else for in while range".split()

# Chat: who is spoken to, about what, in which manner. The hidden preference of later stages
# (polite, names the person, short) can be read from these words alone.
NAMES = ("Anna", "Ben", "Chen", "Dora", "Emil", "Fatou")
TOPICS = ("cat", "tea", "rain", "train", "book", "garden", "moon", "bread")
CHAT_WORDS = (
    "greet thank about tell me hello dear please you your hey is good warm old small and very "
    "really the a I like whatever thing so well glad to help of it summary good bye"
).split()
UNSAFE_TOPICS = ("poison", "bomb", "theft", "virus")
UNSAFE_WORDS = "how make take mix it sorry cannot unsafe first then".split()

# Reserved for the wording of later stages (summaries, judgements), so that the tokenizer stays.
STAGE_WORDS = (
    "check verify mistake wrong error evaluate right answer step again try next last all none found "
    "done because we English Chinese French better worse safe yes correct incorrect check total "
    "target numbers solution uses by gives A B"
).split()
STAGE_WORDS_ZH = "查错验好答步又试末全无找完因我们总目数解是的你好谢请关于帮助中文英法写说想那所以先后"
STAGE_WORDS_FR = (
    "vérifie faux erreur juste réponse étape essaie trouvé donc bonjour merci chat pluie nous je "
    "total cible solution"
).split()
