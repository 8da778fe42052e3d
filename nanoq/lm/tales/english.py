"""English inflection for the words of the tales: plurals, verb forms, comparison, a or an."""

from __future__ import annotations

import re

IRREGULAR_PLURALS = dict(
    pair.split("/")
    for pair in """child/children man/men woman/women mouse/mice goose/geese foot/feet tooth/teeth sheep/sheep
    deer/deer fish/fish wolf/wolves leaf/leaves knife/knives shelf/shelves scarf/scarves loaf/loaves elf/elves
    thief/thieves calf/calves hoof/hooves half/halves wife/wives life/lives potato/potatoes tomato/tomatoes
    mango/mangoes hero/heroes echo/echoes person/people salmon/salmon trout/trout shrimp/shrimp squid/squid
    moose/moose bison/bison scissors/scissors series/series ox/oxen snowman/snowmen fireman/firemen
    cactus/cacti quiz/quizzes octopus/octopuses dwarf/dwarves dormouse/dormice goldfish/goldfish
    swordfish/swordfish jellyfish/jellyfish starfish/starfish catfish/catfish cod/cod tuna/tuna
    fisherman/fishermen policeman/policemen postman/postmen gentleman/gentlemen tornado/tornadoes
    volcano/volcanoes torpedo/torpedoes mosquito/mosquitoes flamingo/flamingos buffalo/buffaloes""".split()  # noqa: SIM905
)

IRREGULAR_PASTS = dict(
    pair.split("/")
    for pair in """be/was have/had do/did go/went say/said see/saw find/found take/took give/gave make/made
    run/ran come/came get/got tell/told think/thought know/knew feel/felt leave/left hold/held keep/kept
    sit/sat stand/stood hear/heard lose/lost eat/ate drink/drank sing/sang ring/rang swim/swam begin/began
    fly/flew grow/grew throw/threw blow/blew draw/drew fall/fell sleep/slept sweep/swept weep/wept creep/crept
    leap/leaped ride/rode write/wrote drive/drove rise/rose shine/shone break/broke speak/spoke wake/woke
    steal/stole freeze/froze choose/chose wear/wore tear/tore swear/swore bear/bore catch/caught teach/taught
    bring/brought buy/bought fight/fought build/built send/sent spend/spent lend/lent bend/bent meet/met
    feed/fed lead/led read/read bleed/bled speed/sped hide/hid slide/slid bite/bit light/lit cut/cut put/put
    hit/hit hurt/hurt shut/shut let/let set/set spread/spread split/split dig/dug stick/stuck swing/swung
    spin/spun win/won hang/hung sting/stung sling/slung cling/clung fling/flung string/strung shake/shook
    forget/forgot lay/laid pay/paid lie/lay sell/sold shoot/shot sink/sank shrink/shrank spring/sprang
    stink/stank tread/trod weave/wove wind/wound bind/bound grind/ground burst/burst cast/cast knit/knitted
    understand/understood become/became shed/shed seek/sought stride/strode sneak/sneaked quit/quit
    breed/bred kneel/knelt mean/meant dream/dreamed bid/bid rid/rid thrust/thrust outrun/outran
    overcome/overcame rebuild/rebuilt unwind/unwound undo/undid sew/sewed mow/mowed hew/hewed
    beat/beat slay/slew""".split()  # noqa: SIM905
)

# Verbs of more than one syllable whose last consonant is doubled all the same.
STRESSED_LAST = {"begin", "forget", "admit", "permit", "regret", "outrun", "unzip", "unwrap", "giftwrap"}

_SILENT_H = re.compile(r"(hour|honest|honou?r|heir)", re.I)
_LIKE_YOU = re.compile(r"(uni([^mn]|$)|use|usu|uten|ukul|euro|one\b|once|eu)", re.I)


def starts_with_vowel_sound(text: str) -> bool:
    """Whether `an` stands before `text`."""
    if _SILENT_H.match(text):
        return True
    return text[:1].lower() in "aeiou" and not _LIKE_YOU.match(text)


def plural(noun: str) -> str:
    """The plural of a noun; of the last word if there are several (except before "of")."""
    head, of, tail = noun.partition(" of ")
    first, space, last = head.rpartition(" ")
    return first + space + _plural_word(last) + of + tail


def _plural_word(word: str) -> str:
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


def _doubles(verb: str) -> bool:
    """Whether the last consonant is doubled before -ed and -ing (hop, hopping)."""
    if verb in STRESSED_LAST:
        return True
    return bool(re.fullmatch(r"[^aeiou]*(?:qu)?[aeiouy][bdgklmnprtvz]", verb)) and len(verb) > 2


def past(verb: str) -> str:
    """The past tense; the first word of a phrase is the verb ("look for" -> "looked for")."""
    word, space, rest = verb.partition(" ")
    return _past_word(word) + space + rest


def _past_word(word: str) -> str:
    if word in IRREGULAR_PASTS:
        return IRREGULAR_PASTS[word]
    if word.endswith("e"):
        return word + "d"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ied"
    if word.endswith("c"):
        return word + "ked"
    return word + (word[-1] if _doubles(word) else "") + "ed"


def gerund(verb: str) -> str:
    """The -ing form; the first word of a phrase is the verb."""
    word, space, rest = verb.partition(" ")
    return _gerund_word(word) + space + rest


def _gerund_word(word: str) -> str:
    if re.search(r"[^aeiou]?ie$", word) and len(word) <= 4:
        return word[:-2] + "ying"
    if word.endswith("e") and not re.search(r"(ee|oe|ye)$", word) and word not in ("be", "singe"):
        return word[:-1] + "ing"
    if word.endswith("c"):
        return word + "king"
    return word + (word[-1] if _doubles(word) else "") + "ing"


def third_person(verb: str) -> str:
    """The -s form; the first word of a phrase is the verb."""
    word, space, rest = verb.partition(" ")
    irregular = {"have": "has", "be": "is", "do": "does", "go": "goes"}
    regular = word + "s" if word in IRREGULAR_PLURALS else _plural_word(word)
    return irregular.get(word, regular) + space + rest


def comparative(adjective: str) -> str:
    """The comparative: -er for short adjectives, "more ..." for long ones."""
    irregular = {"good": "better", "bad": "worse", "little": "smaller", "far": "farther"}
    if adjective in irregular:
        return irregular[adjective]
    syllables = len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", adjective)))
    if adjective.endswith("y") and syllables <= 2 and not re.search(r"[aeiou]y$", adjective):
        return adjective[:-1] + "ier"
    if syllables > 1 or adjective.endswith("ed"):
        return "more " + adjective
    if adjective.endswith("e"):
        return adjective + "r"
    return adjective + (adjective[-1] if _doubles(adjective) else "") + "er"
