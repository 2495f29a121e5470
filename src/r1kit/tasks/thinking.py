"""How a thought is set apart from the answer: the delimiters of the published systems, read and written.

    think         <think>\\n..\\n</think>\\n\\n..                            DeepSeek-R1, Open-R1, QwQ, Qwen3
    think_answer  <think>\\n..\\n</think>\\n<answer>\\n..\\n</answer>          R1-Zero's and Open-R1's RL format
    s1            <|im_start|>think\\n..\\n<|im_start|>answer\\n..           s1
    sky_t1        <|begin_of_thought|>..<|end_of_thought|>, and a solution between tags of its own: Sky-T1, OpenThoughts

`join(*split(text, style), style)` differs from `text` at most in white space beside the delimiters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """Text before the thought, between thought and answer, and after the answer, as it is written."""

    before: str
    between: str
    after: str = ""

    @property
    def open(self) -> str:
        return self.before.strip()

    @property
    def close(self) -> str:
        """The delimiter that ends the thought."""
        return self.between.split()[0]

    @property
    def delimiters(self) -> tuple[str, ...]:
        """Every text that sets a part apart, in order; all of them are written where one of them is."""
        return tuple(f"{self.before} {self.between} {self.after}".split())

    @property
    def tokens(self) -> tuple[str, ...]:
        """What of the delimiters can be one token each: s1's are a token of ChatML and a word."""
        return tuple(dict.fromkeys(t for d in self.delimiters for t in re.findall(r"<[^<>]+>", d)))


STYLES: Mapping[str, Style] = {
    "think": Style("<think>\n", "\n</think>\n\n"),
    "think_answer": Style("<think>\n", "\n</think>\n<answer>\n", "\n</answer>"),
    "s1": Style("<|im_start|>think\n", "\n<|im_start|>answer\n"),
    "sky_t1": Style(
        "<|begin_of_thought|>\n\n",
        "\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n",
        "\n\n<|end_of_solution|>",
    ),
}
# think_answer is asked for by name only: its answer tags are a part of the answer to a verifier.
AUTOMATIC = ("think", "s1", "sky_t1")


def split(text: str, style: str) -> tuple[str, str]:
    """(thought, answer) of an assistant's text; the thought is "" where the text marks none.

    `style` is a name of STYLES, "auto" (the first whose opening stands at the start, or whose `</think>` ends a thought
    that the prompt opened) or "as_is" (the text is the answer). Raises ValueError for a thought that never ends.
    """
    if style == "as_is":
        return "", text
    names = AUTOMATIC if style == "auto" else (style,)
    for name in names:
        found = _split(text, STYLES[name])
        if found is not None:
            return found
    return "", text


def _split(text: str, style: Style) -> tuple[str, str] | None:
    body = text.lstrip()
    opened = body.startswith(style.open)
    thought, closed, answer = body.removeprefix(style.open).rpartition(style.close)
    if opened and not closed:
        raise ValueError(f"the thought opened by {style.open} is never ended by {style.close}")
    # A prompt may have opened the thought (R1's template does): then only its end stands in the text. A later
    # delimiter that is quoted in the prose of an answer is not such an end: it has an opening before it.
    if not closed or (not opened and (style.open in thought or not style.close.startswith("</"))):
        return None
    inner_open, inner_close = style.between.replace(style.close, "", 1).strip(), style.after.strip()
    answer = answer.strip()
    if inner_open and answer.startswith(inner_open):
        answer = answer.removeprefix(inner_open).removesuffix(inner_close).strip()
    return thought.strip(), answer


def join(thought: str, answer: str, style: str) -> str:
    """The assistant's text in the given style; without a thought, or with style "drop", the answer alone."""
    if not thought or style == "drop":
        return answer
    marks = STYLES[style]
    return f"{marks.before}{thought}{marks.between}{answer}{marks.after}"
