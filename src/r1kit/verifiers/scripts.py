"""Scripts and the languages written in them: which letters, how long a word is, which little words give it away.

Words of scripts without spaces are counted by their letters: `LETTERS_PER_WORD` is how many letters stand for one
English word in the same 250 problems of MGSM, so a thought counts about the same in Chinese as in its English
translation. The little words tell languages of one script apart (English from French, Hindi from Marathi): few,
frequent, and where several languages share one, each gets its part of the vote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def _indic(base: int) -> str:
    """Letters and signs of an Indic block: without its full stops and digits."""
    return f"{chr(base)}-{chr(base + 0x63)}{chr(base + 0x70)}-{chr(base + 0x7F)}"


RANGES: Mapping[str, str] = {
    "latin": "A-Za-zªºÀ-ÖØ-öø-ɏ\u0300-\u036fḀ-ỿﬀ-ﬆＡ-Ｚａ-ｚ",
    "han": "々〆㐀-䶿一-鿿\uf900-\ufaff\U00020000-\U000323af",
    "kana": "ぁ-ゖゝ-ゟァ-ヺー-ヿㇰ-ㇿｦ-ﾟ",
    "hangul": "가-힣ᄀ-ᇿㄱ-ㆎ",
    "cyrillic": "Ѐ-ԯ",
    "arabic": "ؐ-ؚؠ-ٟٮ-ۓە-ۯۺ-ۿݐ-ݿࢠ-ࣿﭐ-﷿ﹰ-ﻼ",
    "devanagari": _indic(0x900),
    "bengali": _indic(0x980),
    "gurmukhi": _indic(0xA00),
    "gujarati": _indic(0xA80),
    "oriya": _indic(0xB00),
    "tamil": _indic(0xB80),
    "telugu": _indic(0xC00),
    "kannada": _indic(0xC80),
    "malayalam": _indic(0xD00),
    "sinhala": "\u0d81-\u0ddf",
    "thai": "ก-ฺเ-๎",
    "lao": "ກ-ຽເ-ໍໜ-ໟ",
    "myanmar": "က-ဿၐ-ႏ",
    "khmer": "ក-៓",
    "greek": "Ͱ-Ͽἀ-῿",
    "hebrew": "\u05b0-\u05f4",
    "armenian": "Ա-ֈ",
    "georgian": "Ⴀ-ჿⴀ-ⴥ",
    "ethiopic": "ሀ-ፚ",
}
# Apostrophes, hyphens and joiners belong to a word where letters stand on both sides.
_JOINED = ("latin", "cyrillic", "greek", "hebrew", "armenian", "arabic")
_ANY = "".join(RANGES.values())
WORD = re.compile(
    f"(?=[{_ANY}])(?:"  # one look decides at every space and sign
    + "|".join(
        f"(?P<{name}>[{letters}]+(?:['’\u200c\u200d-][{letters}]+)*)"
        if name in _JOINED
        else f"(?P<{name}>[{letters}\u200c\u200d]+)"
        for name, letters in RANGES.items()
    )
    + ")"
)

LETTERS_PER_WORD: Mapping[str, float] = {
    "han": 1.5,
    "kana": 2.75,
    "thai": 4.5,
    # Not in MGSM; taken as Thai.
    "lao": 4.5,
    "khmer": 4.5,
    "myanmar": 4.5,
}

# Languages of a script of their own. Han and kana are told apart by their company, see `language`.
ONLY: Mapping[str, str] = {
    "hangul": "ko",
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "oriya": "or",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "sinhala": "si",
    "thai": "th",
    "lao": "lo",
    "myanmar": "my",
    "khmer": "km",
    "greek": "el",
    "hebrew": "he",
    "armenian": "hy",
    "georgian": "ka",
    "ethiopic": "am",
}

_LITTLE_WORDS: Mapping[str, Mapping[str, str]] = {
    "latin": {
        "en": "the of and to is that it was for on are with as this be at by have from or had not but what all were"
        " we when there can an your which their if will how then so would each she he they many does you i has its",
        "de": "der die das und ist nicht ein eine zu den mit von auf sich dem des im für sie er wie viel viele hat"
        " in ihr ihre ihren jede jeden"
        " es werden auch aus wird bei einen einer sind dass wenn ich oder pro wir jeder kann noch nach",
        "fr": "le la les à de des et est un une du en que qui dans pour il elle pas par sur au ce son avec plus ne"
        " se sont combien chaque aux nous vous je ou mais cette donc si leur d'un qu'il c'est",
        "es": "el la los las de y que en un una es por con para del se no su al lo como más cuántos cuántas cuánto"
        " tiene cada si son pero está ella entonces hay sus le o",
        "pt": "o a os as de e que em um uma é por com para do da no na se não mais como dos das ao são tem cada"
        " quantos quantas quanto então ele ela seu sua mas foi isso pelo",
        "it": "il lo la i gli le di e che in un una è per con non del della dei si sono da al come più ha quanti"
        " quante quanto ogni ma anche nel alla questo quindi ci dal",
        "nl": "de het een en van is dat in op te zijn met voor niet aan er maar om hij ze die hoeveel elke heeft"
        " ook als bij naar wordt we dus dit uit nog worden",
        "sv": "och att det som en är på för av med till den inte har om ett hur jag så från vi kan när varje eller"
        " han hon många ska sig men var",
        "da": "og at det som en er på for af med til den ikke har om et hvor jeg så fra vi kan når hver eller han"
        " hun mange skal sig men var ikke",
        "pl": "i w na z do się nie że to jest o za od po jak ile przez dla są czy co jego każdy oraz ale który ma"
        " tego także",
        "cs": "a v na se je že z do s to o za od po jak kolik pro jsou by co jeho každý ale který má tak nebo není",
        "fi": "ja on ei se että hän oli mutta kuin ovat joka tämä myös ne niin kun voi sen jos olla minä kuinka"
        " monta ole sekä hänen mitä ovat",
        "ro": "și în de la cu nu pe este un o să că din pentru care mai sunt au al dar cât fiecare are lui ei",
        "hu": "a az és hogy nem is egy ez van de csak meg ha mint már volt el mennyi hány minden vagy azt",
        "tr": "ve bir bu da de için ile ne kadar çok daha olarak her kaç olan var değil gibi ama o mi sonra ise",
        "vi": "là và của có không một các được cho trong với này những người để khi đã bao nhiêu mỗi anh cô ấy thì"
        " nếu tôi nhiều đó bạn ra về sẽ",
        "id": "dan yang di ini itu dengan untuk dari tidak pada adalah akan dalam ke ada juga berapa setiap dia"
        " mereka kita atau saya jika karena maka",
        "sw": "na ya wa kwa ni za la katika kila ya hii yake wake hiyo kama cha alikuwa ambayo ngapi ikiwa kiasi"
        " lakini au moja vya wao hao gani huwa pia yeye mimi zaidi",
        "tl": "ang ng mga sa na at ay ito ko mo siya hindi para kung ni may ako niya bawat ilan ilang kanyang"
        " isang nang",
    },
    "cyrillic": {
        "ru": "и в не на что он она с как это по но из к за то все его от у так для был если чтобы или каждый"
        " сколько она они мы я же бы",
        "uk": "і в не на що він вона з як це та але від за до його так для був якщо щоб або кожен скільки є вони"
        " ми я ж би у й",
        "bg": "и в не на че той тя с как това по но от за да се е са са ще му ли колко всеки ако или тези те ни"
        " съм към като",
    },
    "arabic": {
        "ar": "في من على إلى أن هذا التي الذي كان لا ما عن مع كل كم هو هي أو ذلك بعد قد إذا هل ثم لكن هذه وقد",
        "fa": "و در به از که این را با است برای آن یک تا می بر هم شود چند هر اگر او ما خود نیز یا بود ای",
        "ur": "کے کی میں ہے اور کا سے کو نے پر ہیں یہ کہ اس ہر تو وہ بھی ایک کیا کر نہیں تھا گا جو ہوتا",
    },
    "devanagari": {
        "hi": "के है में की का को से और पर यह हैं एक ने कि वह तो भी कितने हर था या जो हम नहीं कर लिए अगर",
        "mr": "आहे आणि व या त्या हे की च्या मध्ये ते आहेत एक किती प्रत्येक नाही होते असे तर होता करून ती मी पण",
        "ne": "छ र को मा ले हो का लागि यो एक गर्न पनि छन् कति प्रत्येक भने त्यो गरेको हुन्छ थियो तर यस",
    },
}
# Letters that one language of a script uses and most of the others do not.
_LETTERS: Mapping[str, Mapping[str, str]] = {
    "latin": {
        "de": "ßäöü",
        "fr": "èêçœàùîô",
        "es": "ñ¿",
        "pt": "ãõç",
        "sv": "åäö",
        "da": "æøå",
        "pl": "łżąęśźćń",
        "cs": "ěřůčšžý",
        "fi": "äö",
        "ro": "șțăâî",
        "hu": "őűö",
        "tr": "ğışç",
        "vi": "ăđơưạảấầẩậắằặẹẻẽếềểễệịọỏốồổộớờởợụủứừửữựỳỵỷỹ",
    },
    "cyrillic": {"ru": "ыэё", "uk": "іїєґ", "bg": "ъѝ"},
    "arabic": {"ar": "ةىأإيك", "fa": "پچژگکی", "ur": "ٹڈڑںےہھکی"},
    "devanagari": {"mr": "ळ", "hi": "ड़ढ़़"},
}


def _votes(table: Mapping[str, str], split: bool) -> dict[str, dict[str, float]]:
    """Token -> {language: weight}; the weights of a token sum to 1."""
    owners: dict[str, list[str]] = {}
    for language, tokens in table.items():
        for token in dict.fromkeys(tokens.split() if split else tokens):
            owners.setdefault(token, []).append(language)
    return {token: dict.fromkeys(names, 1 / len(names)) for token, names in owners.items()}


WORD_VOTES = {script: _votes(table, True) for script, table in _LITTLE_WORDS.items()}
LETTER_VOTES = {script: _votes(table, False) for script, table in _LETTERS.items()}
LETTER_CLASS = {script: re.compile(f"[{''.join(votes)}]") for script, votes in LETTER_VOTES.items()}

SCRIPTS_OF: Mapping[str, tuple[str, ...]] = {
    "zh": ("han",),
    "ja": ("han", "kana"),
    **{language: (script,) for script, language in ONLY.items()},
    **{language: (script,) for script, table in _LITTLE_WORDS.items() for language in table},
}
