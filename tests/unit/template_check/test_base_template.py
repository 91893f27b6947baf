"""A base model's chat template and special tokens, read without its tokenizer: as the tokenizer has them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.catalog import converted_folder
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError
from sienn_ray.settings import Settings
from sienn_ray.template_check.base_template import BaseTemplate, folder_template, local_template
from sienn_ray.template_check.gguf_metadata import read_metadata
from sienn_ray.template_check.template_tokenizer import TemplateTokenizer
from tests.support.tiny_model import TINY_COMMIT, TINY_ID, add_to_hub_cache
from tests.unit.template_check.checking import CHATML, EOS, save_template

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
MESSAGES = [
    {"role": "system", "content": "Be <|im_end|> brief."},
    {"role": "user", "content": "<b>Why?</b> {{ x }}"},
    {"role": "assistant", "content": "So."},
]


def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home")


def test_it_is_that_of_the_tokenizer(tiny_model_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_folder)
    template = folder_template(tiny_model_folder)
    assert template is not None
    assert template.chat_template == tokenizer.chat_template
    assert template.named_tokens == dict(tokenizer.special_tokens_map)
    assert set(template.special_tokens) == set(tokenizer.all_special_tokens) | {
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special
    }


def test_rows_are_rendered_as_by_the_tokenizer(tiny_model_folder: Path) -> None:
    template = folder_template(tiny_model_folder)
    assert template is not None
    real, light = load_tokenizer(tiny_model_folder), TemplateTokenizer(template, TINY_ID)
    assert PromptFormat.for_chat(light) == PromptFormat.for_chat(real)
    chat = PromptFormat.for_chat(real)
    assert chat.examples(light, MESSAGES) == chat.examples(real, MESSAGES)


def test_one_in_the_hub_cache_is_found(tiny_model_folder: Path, hub_home: Path, tmp_path: Path) -> None:
    assert local_template(TINY_ID, None, settings(tmp_path)) is None
    add_to_hub_cache(tiny_model_folder, hub_home, TINY_ID)
    expected = folder_template(tiny_model_folder)
    assert local_template(TINY_ID, TINY_COMMIT, settings(tmp_path)) == expected
    assert local_template(TINY_ID, None, settings(tmp_path)) == expected
    assert local_template(TINY_ID, "b" * 40, settings(tmp_path)) is None


@pytest.mark.usefixtures("hub_home")
def test_that_of_a_package_is_read_from_its_gguf(tiny_model_folder: Path, tmp_path: Path) -> None:
    # The tiny model has its tokenizer.
    found = local_template(SMOLLM2, None, settings(tmp_path))
    expected = folder_template(tiny_model_folder)
    assert found is not None
    assert expected is not None
    assert found.chat_template == expected.chat_template
    assert found.named_tokens["eos_token"] == expected.named_tokens["eos_token"]
    assert set(expected.special_tokens) <= set(found.special_tokens)
    folder = converted_folder(SMOLLM2, settings(tmp_path).models_dir)
    save_template(folder, "{{ 1 }}")
    converted = local_template(SMOLLM2, None, settings(tmp_path))
    assert converted is not None
    assert converted.chat_template == "{{ 1 }}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"extra_special_tokens": {"image_token": "<image>"}}, "<image>"),
        ({"additional_special_tokens": ["<a>", {"content": "<b>"}]}, "<b>"),
        ({"added_tokens_decoder": {"7": {"content": "<c>", "special": True}}}, "<c>"),
    ],
)
def test_special_tokens_are_told_in_several_places(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    template = folder_template(save_template(tmp_path, **config))
    assert template is not None
    assert expected in template.special_tokens
    assert template.named_tokens == {"bos_token": "<|im_start|>", "eos_token": EOS, "pad_token": EOS}


def test_a_file_of_its_own_goes_before_the_configuration(tmp_path: Path) -> None:
    save_template(tmp_path, "old")
    (tmp_path / "chat_template.jinja").write_text("new")
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": "<x>", "special": True}, {"content": "<y>", "special": False}]})
    )
    template = folder_template(tmp_path)
    assert template is not None
    assert template.chat_template == "new"
    assert "<x>" in template.special_tokens
    assert "<y>" not in template.special_tokens


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"chat_template": [{"name": "a", "template": "b"}]}', '{"added_tokens_decoder": 3}']
)
def test_what_is_told_otherwise_is_not_guessed(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert folder_template(tmp_path) is None


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert folder_template(tmp_path) == BaseTemplate(None, {}, ())


def test_values_of_gguf(tmp_path: Path) -> None:
    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode()

    pairs = [
        ("number", struct.pack("<If", 6, 0.5)),
        ("flags", struct.pack("<IIQ??", 9, 7, 2, True, False)),
        ("names", struct.pack("<IIQ", 9, 8, 2) + string("a") + string("日")),
        ("nested", struct.pack("<IIQIQB", 9, 9, 1, 0, 1, 5)),
        ("text", struct.pack("<I", 8) + string("b")),
    ]
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(string(name) + value for name, value in pairs)
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    assert read_metadata(path, {"number", "flags", "names", "nested", "text", "other"}) == {
        "number": 0.5, "flags": [True, False], "names": ["a", "日"], "nested": [[5]], "text": "b"
    }  # fmt: skip
    for faulty in (b"", b"GGML" + content[4:], content[:-1], content[:30]):
        path.write_bytes(faulty)
        with pytest.raises(ArtifactError, match=r"a\.gguf can't be read as GGUF"):
            read_metadata(path, {"text"})


def test_it_has_no_more_than_a_conversation_and_a_template_to_render() -> None:
    light = TemplateTokenizer(BaseTemplate(CHATML, {"eos_token": EOS}, (EOS,)), "owner/base")
    with pytest.raises(ValueError, match="only a conversation can be rendered"):
        light.apply_chat_template(MESSAGES, tokenize=True)
    with pytest.raises(ValueError, match="only a conversation can be rendered"):
        light.apply_chat_template([])
