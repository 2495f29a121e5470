"""Chat templates for models that have none, or that are to be given another: ChatML, and ChatML that opens the thought.

Light-R1 trains with `<think>` written by the template: a model trained on mathematics alone otherwise may not think.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from r1kit.models.chat import PromptError

_TURNS = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
)
CHAT_TEMPLATES = {
    "chatml": _TURNS + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "chatml_think": _TURNS + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
}
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


def set_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give the tokenizer a template: a name of CHAT_TEMPLATES, or the path of a Jinja file."""
    template = CHAT_TEMPLATES.get(name)
    if template is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise PromptError(
                f"chat_template is {name!r}: expected {', '.join(CHAT_TEMPLATES)} or the path of a .jinja file"
            )
        template = path.read_text(encoding="utf-8")
    tokenizer.chat_template = template
