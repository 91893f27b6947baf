"""Chat templates of the shapes that are common, and conversations that tell them apart."""

from __future__ import annotations

from sienn_ray.datasets.prompt import PLAIN_TEMPLATE

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "ChatML": _CHATML,
    "ChatML with a default system": (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
        + _CHATML
    ),
    "headers": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "roles by name": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] }}"
        "{% elif message['role'] == 'system' %}{{ message['content'] + ' ' }}"
        "{% else %}{{ ' ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
    ),
    "braces": (
        "{% for message in messages %}{{ '{{' + message['role'] + '}}' + message['content'] + '{{end}}' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '{{assistant}}' }}{% endif %}"
    ),
    "plain": PLAIN_TEMPLATE,
}


def _said(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(contents)]
    return [*([] if system is None else [{"role": "system", "content": system}]), *messages]


CONVERSATIONS = [
    _said("Hello"),
    _said("Hello", system="Be brief."),
    _said("Hello", "Hi!", "How are you?"),
    _said("Hello", "Hi!", "How are you?", system="Be brief, and\nkind."),
    _said("a", "b", "c", "d", "e", "f", "g"),
    _said("{{ .Content }} {% if x %}", "<b>&amp;</b> {{ '{{' }}", "`code`\n```py\n```"),
    _said("日本語 und Straße", "🚀 👨‍👩‍👧", "\u00a0tab\there"),
    _said('"quotes" and \\ backslashes', "'single'", "C:\\path"),
    _said("  spaces around  ", "\nlines\n\n", "last"),
    _said("one more", "and its answer", "1 + 1 = ?", system="{{ .System }}"),
]
