"""Rows that a chat template refuses or leaves out, and text that was rendered already: told with row and reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sienn_ray.datasets.render_options import RenderOptions, TemplateVariables
from sienn_ray.datasets.schema import CanonicalRow, RowKind
from sienn_ray.errors import InvalidBaseModelError, InvalidDatasetError, InvalidInputError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.base_template import BaseTemplate, folder_template
from sienn_ray.template_check.check import TryTemplate, find_verdict, render_in_process, verdict_of
from sienn_ray.template_check.program import Work
from sienn_ray.template_check.row_sample import MAX_ROWS
from sienn_ray.template_check.verdict import RowGroup, TemplateRequest, TemplateVerdict, settled_special_tokens
from tests.support.fakes_hub import COMMIT, FakeHub
from tests.unit.conftest import AddToCache
from tests.unit.template_check.checking import BASE_MODEL, CHATML, EOS, STRICT, conversation, put_rows, save_template

Check = Callable[..., TemplateVerdict]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home")


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_url)


@pytest.fixture
def check(tmp_path: Path, settings: Settings, storage: Storage) -> Check:
    """Checks rows under a chat template in this process."""

    def check(
        request: TemplateRequest, chat_template: str = CHATML, render: TryTemplate = Work.answer
    ) -> TemplateVerdict:
        template = folder_template(save_template(tmp_path / "model", chat_template))
        verdict = find_verdict(request, settings, storage, render, template)
        assert verdict is not None
        return verdict

    return check


def test_rows_that_are_rendered_pass(check: Check, storage: Storage) -> None:
    request = put_rows(storage, [conversation("Why?", "So."), conversation("Hi", "Ho", "And?", "So.")])
    verdict = check(request)
    verdict.check(request)
    assert (verdict.num_rows, verdict.is_all, verdict.warnings(request)) == (2, True, [])


def test_a_refused_row_is_told_with_its_line_and_the_templates_reason(check: Check, storage: Storage) -> None:
    twice = conversation("Why?", "Tell me.", "So.", roles="uua")
    request = put_rows(storage, [conversation("Why?", "So."), twice, conversation("a", "b"), twice])
    with pytest.raises(InvalidDatasetError) as raised:
        check(request, STRICT).check(request)
    assert raised.value.message == (
        "2 of 4 rows can't be rendered by the chat template of base model 'owner/base': row 2 (line 3) and one other: "
        "the base model's chat template refuses a conversation: Roles must alternate. Change these rows, or choose "
        "another base model"
    )


def test_a_shape_far_behind_is_tried(check: Check, storage: Storage) -> None:
    rows = [conversation("Why?", "So.")] * (3 * MAX_ROWS)
    rows[2 * MAX_ROWS + 7] = conversation("Why?", "Tell me.", "So.", roles="uua")
    request = put_rows(storage, rows)
    verdict = check(request, STRICT)
    assert verdict.num_rows < 2 * MAX_ROWS
    assert not verdict.is_all
    assert [(each.row, each.line) for each in verdict.refused] == [(2 * MAX_ROWS + 7, 2 * MAX_ROWS + 9)]
    assert f"1 of the {verdict.num_rows} rows that were tried can't be rendered" in str(verdict.refusal(request))


def test_what_a_template_leaves_out_is_refused(check: Check, storage: Storage) -> None:
    template = CHATML.replace("{{ '<|im_start|>' +", "{% if loop.index0 != 2 %}{{ '<|im_start|>' +")
    template = template.replace("{% endfor %}", "{% endif %}{% endfor %}")
    request = put_rows(storage, [conversation("Why?", "So."), conversation("Why?", "So.", "And?", "No.")])
    assert str(check(request, template).refusal(request)).startswith(
        "1 of 2 rows can't be rendered by the chat template of base model 'owner/base': row 2 (line 3): the base "
        "model's chat template leaves out the content of messages[2], which is the user's"
    )


def test_reasoning_that_a_template_leaves_out_of_earlier_answers_is_no_fault(check: Check, storage: Storage) -> None:
    template = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    request = put_rows(storage, [conversation("Why?", "<think>Hm.</think>So.", "And?", "<think>Ah.</think>So.")])
    verdict = check(request, template)
    assert verdict.warnings(request) == []


def test_text_that_was_rendered_already_is_read_as_it_was_and_that_is_told(check: Check, storage: Storage) -> None:
    text = f"<|im_start|>user\nHi{EOS}\n<|im_start|>assistant\nHo{EOS}\n"
    request = put_rows(storage, [CanonicalRow(text=text), CanonicalRow(text="plain")])
    verdict = check(request)
    verdict.check(request)
    assert verdict.reads_tokens(request)
    assert verdict.warnings(request) == [
        "1 of 2 rows look rendered already: row 1 (line 2): '<|im_start|>' is a special token of the base model. Such "
        "strings are read as the tokens that they stand for; set special_tokens to 'text' to have them learned as the "
        "text that they are"
    ]
    for said in ("text", "tokens"):
        asked = replace(request, is_auto=False, options=RenderOptions.of({}, said))
        assert (verdict.warnings(asked), verdict.reads_tokens(asked)) == ([], False)


def test_a_few_marks_in_text_are_told(check: Check, storage: Storage) -> None:
    rows = [CanonicalRow(text="plain")] * 9 + [CanonicalRow(text=f"ChatML ends a turn with {EOS} as its mark")]
    request = put_rows(storage, rows)
    verdict = check(request)
    assert not verdict.reads_tokens(request)
    assert verdict.warnings(request) == [
        "1 of 10 rows have special tokens of the base model in their text, which are learned as text: row 10 (line "
        "11): '<|im_end|>' is a special token of the base model. Set special_tokens to 'tokens' if they are meant as "
        "tokens"
    ]


@pytest.mark.parametrize(
    ("text", "tokens", "is_rendered"),
    [
        ("<s>struck out</s> and more", ("<s>", "</s>"), False),
        ("a corpus with <unk> words and <pad>", ("<unk>", "<pad>"), False),
        ("<s>[INST] Hi [/INST] Ho </s><s>[INST] And? [/INST] So.", ("<s>", "</s>"), True),
        ("<s>[INST] Hi [/INST] Ho </s> more", ("[INST]", "</s>"), True),
        ("<start_of_turn>user\nHi", ("<start_of_turn>",), True),
        ("<|im_start|>user\nHi<s>", ("<s>",), False),  # another model's marks
    ],
)
def test_marks_of_templates_alone_are_signs_of_rendering(
    check: Check, storage: Storage, settings: Settings, text: str, tokens: tuple[str, ...], is_rendered: bool
) -> None:
    request = put_rows(storage, [CanonicalRow(text=text)])
    verdict = find_verdict(request, settings, storage, Work.answer, BaseTemplate(None, {}, tokens))
    assert verdict is not None
    assert verdict.marked is not None
    assert verdict.reads_tokens(request) is is_rendered
    words = "look rendered already" if is_rendered else "are learned as text"
    assert words in "".join(verdict.warnings(request))


class TestSettledSpecialTokens:
    NONE = TemplateVerdict(num_rows=2, is_all=True)
    MARKED = NONE.model_copy(update={"marked": RowGroup(row=0, line=1, num_rows=2, reason="has some")})
    RENDERED = MARKED.model_copy(update={"num_rendered": 2})
    REQUEST = TemplateRequest("d1", 2, RowKind.TEXT, BASE_MODEL)

    @pytest.mark.parametrize(
        ("verdicts", "settled"),
        [
            ((RENDERED,), "tokens"),
            ((MARKED,), "text"),
            ((NONE,), "text"),
            ((RENDERED, NONE, RENDERED), "tokens"),
            ((RENDERED, None), None),
            ((NONE, TemplateVerdict(num_rows=0, is_all=False)), None),
        ],
    )
    def test_datasets_of_a_job_are_read_alike(
        self, verdicts: tuple[TemplateVerdict | None, ...], settled: str | None
    ) -> None:
        assert settled_special_tokens([(self.REQUEST, verdict) for verdict in verdicts]) == settled
        said = replace(self.REQUEST, is_auto=False)
        assert settled_special_tokens([(said, verdict) for verdict in verdicts]) is None

    def test_datasets_that_disagree_are_refused(self) -> None:
        other = replace(self.REQUEST, dataset_id="d2")
        with pytest.raises(
            InvalidDatasetError, match=r"d2 looks rendered already, .* dataset d1 has some .* set special_tokens to"
        ):
            settled_special_tokens([(self.REQUEST, self.MARKED), (other, self.RENDERED)])


def test_an_end_mark_at_the_end_is_no_sign_of_rendering(check: Check, storage: Storage) -> None:
    request = put_rows(storage, [CanonicalRow(text=f"plain{EOS}\n")])
    verdict = check(request)
    assert (verdict.refusal(request), verdict.warnings(request)) == (None, [])


def test_a_variable_that_the_template_has_not_is_refused(check: Check, storage: Storage) -> None:
    options = RenderOptions(TemplateVariables.of({"enable_thinking": False}))
    request = replace(put_rows(storage, [conversation("Why?", "So.")]), options=options)
    with pytest.raises(InvalidInputError, match="base model 'owner/base' has no variable 'enable_thinking'"):
        check(request)
    request = replace(put_rows(storage, [CanonicalRow(text="plain")], "d2"), options=options)
    with pytest.raises(InvalidInputError, match="plain text has no chat template"):
        check(request)


def test_the_rows_are_rendered_with_the_variables(check: Check, storage: Storage) -> None:
    template = "{% if mode is defined and mode == 'never' %}{{ raise_exception('never') }}{% endif %}" + CHATML
    request = put_rows(storage, [conversation("Why?", "So.")])
    assert check(request, template).refused == ()
    never = replace(request, options=RenderOptions(TemplateVariables.of({"mode": "never"})))
    assert check(never, template).refused[0].reason.endswith("never")


def test_what_was_found_is_kept(check: Check, storage: Storage, settings: Settings) -> None:
    request = put_rows(storage, [conversation("Why?", "So.")])
    verdict = check(request)

    def never(work: Work) -> None:
        raise AssertionError(work)

    assert find_verdict(request, settings, storage, never) == verdict
    assert find_verdict(replace(request, is_auto=False), settings, storage, never) == verdict
    # The base model isn't here.
    assert find_verdict(replace(request, revision="b" * 40), settings, storage, never) is None


def test_a_process_finds_the_same(check: Check, storage: Storage) -> None:
    request = put_rows(storage, [conversation("Why?", "Tell me.", "So.", roles="uua"), conversation("Why?", "So.")])
    expected = check(request, STRICT)
    storage.delete(request.key)
    assert check(request, STRICT, render_in_process) == expected
    assert expected.num_refused == 1


def test_a_template_that_takes_too_much_memory_is_refused(check: Check, storage: Storage) -> None:
    request = put_rows(storage, [conversation("Why?", "So.")])
    with pytest.raises(InvalidBaseModelError, match=rf"base model '{BASE_MODEL}' takes more than \d+ s of CPU time or"):
        check(request, "{{ 'a' * 10000000000 }}" + CHATML, render_in_process)


def test_a_job_downloads_the_tokenizer_s_files_of_a_base_model_that_is_not_here(
    hub: FakeHub, hub_home: Path, settings: Settings, storage: Storage, tmp_path: Path
) -> None:
    folder = save_template(tmp_path / "there", STRICT)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.files[BASE_MODEL] = {**files, "config.json": json.dumps(config).encode(), "model.safetensors": b"weights"}
    rows = [conversation("Why?", "Tell me.", "So.", roles="uua"), conversation("Why?", "So.")]
    request = replace(put_rows(storage, rows), revision=COMMIT)
    assert find_verdict(request, settings, storage, Work.answer) is None
    with pytest.raises(InvalidDatasetError, match="1 of 2 rows can't be rendered by the chat template of base model"):
        verdict_of(request, settings, storage).check(request)
    assert not list(hub_home.rglob("model.safetensors"))
    assert TemplateVerdict.kept(storage, request) is not None


def test_a_template_that_is_told_in_another_way_is_left_to_the_job(
    add_to_cache: AddToCache, settings: Settings, storage: Storage
) -> None:
    several = {"chat_template": [{"name": "default", "template": CHATML}]}
    add_to_cache(BASE_MODEL, {"config.json": {}, "model.safetensors": b"weights", "tokenizer_config.json": several})
    request = put_rows(storage, [conversation("Why?", "So.")])
    assert find_verdict(request, settings, storage, Work.answer) is None
