"""The tokenizer of the tiny bases: one token per number, per verdict and per tag, printable ASCII as the
fallback.

An attempt such as `(3+6)-5=9-5=4?13 no\\n` is 16 tokens: numbers from 0 to 99 are single tokens (so
arithmetic is a table look-up, not a digit algorithm), and a verdict is one token, newline included. A run
of three or more digits and a number with a leading zero are spelled digit by digit. Printable ASCII and the
newline survive a round trip unchanged; any other character becomes `<unk>`.

The result is an ordinary fast tokenizer: `save_pretrained` writes files that plain Transformers loads.
`encode` adds neither `<bos>` nor `<eos>`; whoever builds a prompt or a training row adds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
TAG_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
WORD_TOKENS = (" no\n", " yes", "wait ", "check ", "Q:", "A:")

# Jinja: bos once, each turn opened by its role token, an assistant's turn closed by eos. A generation
# prompt is the open assistant turn.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def vocabulary() -> dict[str, int]:
    """Token text to id. The order is part of every saved checkpoint: append, never reorder."""
    numbers = tuple(str(n) for n in range(10, 100))
    printable = tuple(chr(code) for code in range(0x20, 0x7F))  # the digits 0..9 are the one-digit numbers
    tokens = (*SPECIAL_TOKENS, *ROLE_TOKENS, *TAG_TOKENS, *WORD_TOKENS, *printable, "\n", *numbers)
    return {token: index for index, token in enumerate(tokens)}


# A two-digit number that is not part of a longer run and has no leading zero; Python and Oniguruma read it
# alike.
_TWO_DIGITS = r"(?<![0-9])[1-9][0-9](?![0-9])"
_WORDS = "|".join(WORD_TOKENS)


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, built from nothing; two calls give equal tokenizers."""
    backend = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    # Every character is matched by some branch, so nothing is left between the pieces; (?m:.) also takes
    # newlines.
    pattern = Regex(f"{_WORDS}|{_TWO_DIGITS}|(?m:.)")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True) for t in (*SPECIAL_TOKENS, *ROLE_TOKENS)])
    # Tags are text to the verifiers: decoding without special tokens must keep them.
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAG_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=list(ROLE_TOKENS),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def corpus_encoder() -> Callable[[str], list[int]]:
    """A function that encodes exactly as the tokenizer of `build_tiny_tokenizer` does, about six times as
    fast.

    Pre-training writes millions of tokens a second; through the general machinery, tokenising them would
    take longer than making them.
    """
    added = "|".join(map(re.escape, (*SPECIAL_TOKENS, *ROLE_TOKENS, *TAG_TOKENS)))
    pieces = re.compile(f"{added}|{_WORDS}|{_TWO_DIGITS}|.", re.DOTALL).findall
    id_of = _Ids(vocabulary()).__getitem__
    return lambda text: list(map(id_of, pieces(text)))


class _Ids(dict[str, int]):
    """Ids by piece; that of what is none."""

    def __missing__(self, piece: str) -> int:
        return self["<unk>"]
