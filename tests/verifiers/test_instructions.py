"""Why this matters: IFEval is a number people compare, so each of its 25 kinds has to mean what the benchmark means.
Exercised: for every instruction of its 541 prompts, a text built to follow it passes and one built to break it fails;
edge cases of counting by hand; loose reading; instructions that make no sense.

Not exercised: whether a response that follows its instructions is any good.
"""

from __future__ import annotations

from typing import Any

import pytest

from r1kit.verifiers.instructions import CHECKS, InstructionError, check_instruction, judge_instructions
from r1kit.verifiers.instructions.counting import capital_words, count_bullets, count_sentences, count_words

from .data_rows import data_rows

# "The children go to school every morning. They read books and play with their friends."
SAMPLES = {
    "ar": "يذهب الأطفال إلى المدرسة كل صباح. هم يقرؤون الكتب في الصف مع الأصدقاء.",
    "bg": "Децата ходят на училище всяка сутрин. Те четат книги и играят с приятелите си, но не са сами.",
    "bn": "শিশুরা প্রতিদিন সকালে স্কুলে যায়। তারা বই পড়ে।",
    "de": "Die Kinder gehen jeden Morgen in die Schule. Sie lesen Bücher und spielen mit ihren Freunden.",
    "en": "The children go to school every morning. They read books and play with their friends.",
    "fa": "بچه‌ها هر روز صبح به مدرسه می‌روند. آنها کتاب می‌خوانند و با دوستان خود بازی می‌کنند.",
    "fi": "Lapset menevät kouluun joka aamu. He lukevat kirjoja ja leikkivät ystäviensä kanssa, kun se on hauskaa.",
    "gu": "બાળકો દરરોજ સવારે શાળાએ જાય છે. તેઓ પુસ્તકો વાંચે છે.",
    "hi": "बच्चे हर सुबह स्कूल जाते हैं। वे किताबें पढ़ते हैं और दोस्तों के साथ खेलते हैं।",
    "it": "I bambini vanno a scuola ogni mattina. Leggono i libri e giocano con gli amici che sono nella classe.",
    "kn": "ಮಕ್ಕಳು ಪ್ರತಿದಿನ ಬೆಳಿಗ್ಗೆ ಶಾಲೆಗೆ ಹೋಗುತ್ತಾರೆ. ಅವರು ಪುಸ್ತಕಗಳನ್ನು ಓದುತ್ತಾರೆ.",
    "ko": "아이들은 매일 아침 학교에 갑니다. 그들은 책을 읽습니다.",
    "mr": "मुले दररोज सकाळी शाळेत जातात. ते पुस्तके वाचतात आणि मित्रांसोबत खेळतात, पण ते एकटे नाही.",
    "ne": "केटाकेटीहरू हरेक बिहान विद्यालय जान्छन्। यो राम्रो छ र तिनीहरूको लागि पनि पुस्तक छन्।",
    "pa": "ਬੱਚੇ ਹਰ ਸਵੇਰ ਸਕੂਲ ਜਾਂਦੇ ਹਨ। ਉਹ ਕਿਤਾਬਾਂ ਪੜ੍ਹਦੇ ਹਨ।",
    "pt": "As crianças vão para a escola todas as manhãs. Elas leem livros e não brincam com os seus amigos.",
    "ru": "Дети каждое утро ходят в школу. Они читают книги и играют с друзьями, но это не все.",
    "sw": "Watoto huenda shuleni kila asubuhi. Wao husoma vitabu na kucheza na marafiki wa shule yao.",
    "ta": "குழந்தைகள் தினமும் காலையில் பள்ளிக்குச் செல்கிறார்கள். அவர்கள் புத்தகங்களைப் படிக்கிறார்கள்.",
    "te": "పిల్లలు ప్రతి ఉదయం పాఠశాలకు వెళతారు. వారు పుస్తకాలు చదువుతారు.",
    "th": "เด็กๆ ไปโรงเรียนทุกเช้า พวกเขาอ่านหนังสือ",
    "ur": "بچے ہر صبح سکول جاتے ہیں۔ وہ کتابیں پڑھتے ہیں اور دوستوں کے ساتھ کھیلتے ہیں۔",
    "vi": "Trẻ em đi học mỗi buổi sáng. Các em đọc sách và chơi với những người bạn của mình.",
}


def enough(relation: str, limit: int) -> tuple[int, int]:
    """A count that follows and one that breaks `relation limit`."""
    return (limit, limit - 1) if relation == "at least" else (limit - 1, limit)


def repeated(unit: str, counts: tuple[int, int]) -> tuple[str, str]:
    good, bad = ("Oh" + f" {unit}" * count for count in counts)
    return good, bad


def follow_and_break(kind: str, a: dict[str, Any]) -> tuple[str, str]:
    """Two texts: one that follows the instruction and one that breaks it, made without the checkers."""
    plain = SAMPLES["en"]
    match kind.split(":")[1]:
        case "existence":
            return f"I say {' and '.join(a['keywords'])}.", "I say " + " and ".join(a["keywords"][1:])
        case "frequency":
            return repeated(a["keyword"], enough(a["relation"], a["frequency"]))
        case "forbidden_words":
            return "Nothing. " + a["forbidden_words"][0] + "xyz", f"I say {a['forbidden_words'][0].upper()}!"
        case "letter_frequency":
            counts = enough(a["let_relation"], a["let_frequency"])
            return "=" + a["letter"] * counts[0], "=" + a["letter"].upper() * counts[1]
        case "response_language":
            return SAMPLES[a["language"]], SAMPLES["en" if a["language"] != "en" else "de"]
        case "number_sentences":
            good, bad = enough(a["relation"], a["num_sentences"])
            return "Dr. No met me. " * good or "-", "We paid 3.50 then. " * bad
        case "number_words":
            good, bad = enough(a["relation"], a["num_words"])
            return "word " * good, "word " * bad
        case "number_paragraphs":
            return "\n***\n".join(["Text."] * a["num_paragraphs"]), "\n***\n".join(
                ["Text."] * (a["num_paragraphs"] + 1)
            )
        case "nth_paragraph_first_word":
            parts = ["Some text."] * a["num_paragraphs"]
            broken = "\n\n".join(parts)
            parts[a["nth_paragraph"] - 1] = f"{a['first_word'].title()}, and so on."
            return "\n\n".join(parts), broken
        case "number_placeholders":
            return "[name] " * a["num_placeholders"], "[name] " * (a["num_placeholders"] - 1) + "[] x"
        case "postscript":
            return f"Bye.\n\n{a['postscript_marker']} Do come.", "Bye."
        case "number_bullet_lists":
            bullets = ["* a", "- b"] * a["num_bullets"]
            return "\n".join(bullets[: a["num_bullets"]]), "\n".join(bullets[: a["num_bullets"] + 1])
        case "constrained_response":
            return "My answer is maybe.", "My answer is yes. My answer is no."
        case "number_highlighted_sections":
            return "*so* **it** " * ((a["num_highlights"] + 1) // 2), "*so* " * (a["num_highlights"] - 1) + "** **x"
        case "multiple_sections":
            return "".join(f"{a['section_spliter']} {i + 1}\ntext\n" for i in range(a["num_sections"])), "Section one."
        case "json_format":
            return '```json\n{"a": [1, 2]}\n```', "{'a': 1}"
        case "title":
            return "<<On eggs>>\nText.", "<< >>\nText."
        case "two_responses":
            return "One.\n******\nTwo.", "One.\n******\nOne."
        case "repeat_prompt":
            return f"{a['prompt_to_repeat']}\nText.", f"Well: {a['prompt_to_repeat']}"
        case "end_checker":
            return f"Text. {a['end_phrase']}", f"{a['end_phrase']} Text."
        case "quotation":
            return '"All of it."', '"All" of it.'
        case "capital_word_frequency":
            good, bad = enough(a["capital_relation"], a["capital_frequency"])
            return "so " + "NO " * good, "so " + "NO " * bad
        case "english_capital":
            return plain.upper(), plain
        case "english_lowercase":
            return plain.lower(), SAMPLES["de"].lower()
        case "no_comma":
            return "No; none.", "No, one."
    raise AssertionError(f"no texts for {kind}")


def test_every_instruction_of_the_541_prompts_both_ways() -> None:
    kinds = set()
    rows = data_rows("ifeval/input_data.jsonl.gz")
    assert len(rows) == 541
    for row in rows:
        for kind, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            arguments = {name: value for name, value in given.items() if value is not None}
            good, bad = follow_and_break(kind, arguments)
            assert check_instruction(good, kind, given), (row["key"], kind, arguments, good[:200])
            assert not check_instruction(bad, kind, given), (row["key"], kind, arguments, bad[:200])
            assert check_instruction(f"Sure, here you go\n{good}\nDone", kind, given, loose=True), (kind, arguments)
            kinds.add(kind)
    assert kinds == set(CHECKS)
    assert len(kinds) == 25


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Hello. World!", 2),
        ("Dr. Smith met Mr. Jones at 3 p.m. yesterday. He left.", 2),
        ("1. First item.\n2. Second item.", 2),
        ("Wait... what? No!", 2),
        ("J. R. Tolkien wrote it. Hi", 2),
        ("Pi is 3.14 or so. See e.g. the book.", 2),
        ('He said "Go." Then he left.', 2),
        ("你好。世界！", 2),
        ("I say no. Then I go.", 2),
        ("No. 5 is alive.", 1),
        ("No stop here", 1),
        ("It is in the U.S. today.", 1),
        ("Really?! Yes.", 2),
        ("...", 0),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_other_counts() -> None:
    assert count_words("It's a well-known fact: 3,5 = x_1") == 9
    assert capital_words("I saw the USA and NATO's A-10 in U.S. waters, ok") == 4
    assert count_bullets("* a\n - b\n---\n***\n**bold** x\n*emphasis* y\n-- no\n* * *\n-c\n* **d** e\n- *f*") == 5


@pytest.mark.parametrize(
    ("kind", "text", "arguments", "followed"),
    [
        ("keywords:forbidden_words", "C++ and C", {"forbidden_words": ["C++"]}, False),
        ("detectable_content:postscript", "the stop. So", {"postscript_marker": "P.S."}, False),
        ("detectable_content:postscript", "P.S.", {"postscript_marker": "P.S."}, False),
        ("detectable_content:postscript", "p. s. hello", {"postscript_marker": "P.S."}, True),
        ("detectable_content:postscript", "P.P.S hello", {"postscript_marker": "P.P.S"}, True),
        ("detectable_format:json_format", "[" * 100_000, {}, False),
        ("detectable_format:json_format", "", {}, False),
        ("combination:two_responses", "a ****** ****** b", {}, False),
        ("length_constraints:number_paragraphs", "a\n***\n\n***\nb", {"num_paragraphs": 2}, False),
        ("length_constraints:number_paragraphs", "***\na\n***\nb", {"num_paragraphs": 2}, True),
        ("startend:quotation", "“Yes, all.”", {}, True),
        ("change_case:english_capital", "ÜBER ALLES IST DAS HAUS UND DER BAUM NICHT SO GRÜN", {}, False),
    ],
)
def test_edges(kind: str, text: str, arguments: dict[str, Any], followed: bool) -> None:
    assert check_instruction(text, kind, arguments) is followed


def test_verdicts() -> None:
    kinds, arguments = ["punctuation:no_comma", "startend:quotation"], [{}, {"unused": None}]
    assert judge_instructions('"So."', kinds, arguments).correct
    missed = judge_instructions("So.", kinds, arguments)
    assert (missed.score, missed.reason, missed.normal_form) == (0, "wrong", "startend:quotation")
    assert judge_instructions("So.", kinds, arguments, partial=True).score == 0.5
    assert judge_instructions(" ", kinds, arguments).reason == "no_answer"
    framed = 'Sure:\n*"So."*\nBye'
    assert not judge_instructions(framed, kinds, arguments).correct
    assert judge_instructions(framed, kinds, arguments, loose=True).correct


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("no:such_kind", {}),
        ("punctuation:no_comma", {"extra": 1}),
        ("keywords:existence", {}),
        ("keywords:existence", {"keywords": "word"}),
        ("keywords:existence", {"keywords": []}),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "about"}),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 2, "let_relation": "at least"}),
        ("language:response_language", {"language": "klingon"}),
        ("length_constraints:number_words", {"num_words": "ten", "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}),
    ],
)
def test_instructions_that_make_no_sense_are_skips(kind: str, arguments: dict[str, Any]) -> None:
    for response in ("text", ""):
        assert judge_instructions(response, [kind], [arguments]).reason == "gold_invalid"
    with pytest.raises(InstructionError):
        check_instruction("text", kind, arguments)
    assert judge_instructions("text", [], []).reason == "gold_invalid"


def test_numbers_from_columns_with_gaps() -> None:
    assert check_instruction("a b c", "length_constraints:number_words", {"num_words": 3.0, "relation": "at least"})
