"""What a chat template refuses or leaves out is told when a fine-tune is submitted, never first in the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.storage import Storage
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache, save_strict_model
from tests.unit.api.starting import start

THINKING = (
    "{% for message in messages %}{% if loop.index0 != 2 %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
PLAIN = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
BRIEF = [{"role": "user", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}]


def add_model(tiny_model_folder: Path, hub_cache: Path, folder: Path, chat_template: str | None = None) -> None:
    """Put the tiny model under the contract's id; by default with a template that refuses the word `brief`."""
    save_strict_model(tiny_model_folder, folder)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    add_to_hub_cache(folder, hub_cache, CONTRACT_ID)


@pytest.fixture
def strict_model(tiny_model_folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    add_model(tiny_model_folder, hub_cache, tmp_path / "strict")


@pytest.fixture
def thinking_model(tiny_model_folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    add_model(tiny_model_folder, hub_cache, tmp_path / "thinking", THINKING)


def upload(client: TestClient, *rows: Any) -> str:
    """Upload conversations or texts; returns the dataset's id."""
    lines = [json.dumps({"text": row} if isinstance(row, str) else {"messages": row}) for row in rows]
    answer = client.post("/api/upload-dataset", files={"file": ("rows.jsonl", "\n".join(lines))})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["dataset_id"])


@pytest.mark.usefixtures("strict_model")
class TestRefused:
    def test_rows_are_told_with_their_lines_and_no_job_is_made(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        answer = start(client, dataset_id=upload(client, PLAIN, BRIEF, PLAIN))
        assert answer.status_code == 400
        assert answer.json()["detail"] == (
            f"1 of 3 rows can't be rendered by the chat template of base model '{CONTRACT_ID}': row 2 (line 2): the "
            "base model's chat template refuses a conversation: Brief answers are not supported. Change these rows, or "
            "choose another base model"
        )
        assert client.get("/api/jobs").json()["count"] == 0

    def test_rows_to_evaluate_on_are_checked_too(self, client: TestClient) -> None:
        good, bad = upload(client, PLAIN), upload(client, BRIEF)
        answer = start(client, dataset_id=good, validation_dataset_id=bad)
        assert answer.status_code == 400
        assert "1 of 1 rows can't be rendered" in answer.json()["detail"]

    def test_what_was_found_is_deleted_with_the_dataset(self, client: TestClient, storage: Storage) -> None:
        dataset_id = upload(client, PLAIN)
        assert start(client, dataset_id=upload(client, BRIEF)).status_code == 400
        assert start(client, dataset_id=dataset_id).status_code == 201
        assert storage.fs.glob(f"{storage.root}/datasets/{dataset_id}/templates/*.json")


@pytest.mark.usefixtures("thinking_model")
class TestVariables:
    def test_a_job_keeps_them(self, client: TestClient, tracker: InProcessTracker) -> None:
        answer = start(client, dataset_id=upload(client, PLAIN), chat_template_kwargs={"enable_thinking": False})
        assert answer.status_code == 201
        assert tracker.last_job.config.chat_template_kwargs == {"enable_thinking": False}
        job = client.get(f"/api/jobs/{answer.json()['job_id']}").json()
        assert '"enable_thinking": false' in json.dumps(job)

    def test_a_name_that_the_template_has_not_is_refused(self, client: TestClient) -> None:
        answer = start(client, dataset_id=upload(client, PLAIN), chat_template_kwargs={"enable_thinkin": False})
        assert answer.status_code == 400
        assert answer.json()["detail"] == (
            f"chat_template_kwargs: the chat template of base model '{CONTRACT_ID}' has no variable 'enable_thinkin'; "
            "it has enable_thinking"
        )

    @pytest.mark.parametrize("values", [{"messages": []}, {"x": {}}, ["x"], "x", {"eos_token": "x"}])
    def test_what_no_template_can_be_given_is_refused(self, client: TestClient, values: Any) -> None:
        answer = start(client, dataset_id=upload(client, PLAIN), chat_template_kwargs=values)
        assert answer.status_code == 422
        assert "chat_template_kwargs" in answer.text

    def test_text_has_none(self, client: TestClient) -> None:
        answer = start(client, dataset_id=upload(client, "plain text"), chat_template_kwargs={"enable_thinking": True})
        assert answer.status_code == 400
        assert "plain text has no chat template" in answer.json()["detail"]

    def test_what_the_template_leaves_out_is_told(self, client: TestClient) -> None:
        answer = start(client, dataset_id=upload(client, PLAIN, [*PLAIN, *BRIEF]))
        assert answer.status_code == 400
        assert "row 2 (line 2): the base model's chat template leaves out the content of messages[2]" in answer.text


@pytest.mark.usefixtures("cached_base_model")
class TestText:
    RENDERED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"

    def test_rows_that_look_rendered_are_told(self, client: TestClient, tracker: InProcessTracker) -> None:
        dataset_id = upload(client, self.RENDERED, "plain")
        answer = start(client, dataset_id=dataset_id)
        assert answer.status_code == 201
        assert "1 of 2 rows look rendered already: row 1 (line 1): '<|im_start|>'" in answer.json()["warning"]
        # Settled once, so that the job, its statistics and its children read it alike.
        assert tracker.last_job.config.special_tokens == "tokens"
        events = client.get(f"/api/jobs/{answer.json()['job_id']}/events").json()
        assert "look rendered already" in json.dumps(events)
        for said in ("tokens", "text"):
            assert start(client, dataset_id=dataset_id, special_tokens=said).status_code == 201
            assert tracker.last_job.config.special_tokens == said

    MARKED = ("a", "b", "the mark <|im_end|> ends a turn")

    def test_a_few_marks_are_told(self, client: TestClient, tracker: InProcessTracker) -> None:
        answer = start(client, dataset_id=upload(client, *self.MARKED))
        assert answer.status_code == 201
        assert tracker.last_job.config.special_tokens == "text"
        assert "1 of 3 rows have special tokens of the base model in their text" in answer.json()["warning"]

    def test_a_mixture_that_disagrees_is_refused(self, client: TestClient) -> None:
        ids = [upload(client, self.RENDERED), upload(client, *self.MARKED)]
        mixture: dict[str, Any] = {"dataset_id": None, "datasets": [{"dataset_id": each} for each in ids]}
        answer = start(client, **mixture)
        assert answer.status_code == 400
        assert f"dataset {ids[1]} has some in its text" in answer.json()["detail"]
        assert "set special_tokens to 'tokens' or 'text'" in answer.json()["detail"]
        assert start(client, **mixture, special_tokens="tokens").status_code == 201

    def test_rendered_rows_and_statistics_read_it_as_a_job_does(
        self, client: TestClient, statistics: FakeStatistics, renderings: FakeRenderings
    ) -> None:
        found = {}
        for rows in ((self.RENDERED,), self.MARKED):
            for said in (None, "text", "tokens"):
                dataset_id = upload(client, *rows)
                query = {"model_name": CONTRACT_ID} | ({} if said is None else {"special_tokens": said})
                for path in ("statistics", "rendered"):
                    assert client.get(f"/api/datasets/{dataset_id}/{path}", params=query).status_code == 200
                options = statistics.asked[-1].options
                assert options == renderings.asked[-1].options
                found[len(rows), said] = options.special_tokens
        assert found == {
            (1, None): "tokens", (1, "text"): "text", (1, "tokens"): "tokens",
            (3, None): "text", (3, "text"): "text", (3, "tokens"): "tokens",
        }  # fmt: skip


def test_statistics_and_rendered_rows_are_of_the_variables(
    client: TestClient, dataset: str, cached_base_model: str, statistics: FakeStatistics, renderings: FakeRenderings
) -> None:
    query = {"chat_template_kwargs": '{"enable_thinking": false}', "special_tokens": "tokens"}
    for path in ("statistics", "rendered"):
        assert client.get(f"/api/datasets/{dataset}/{path}", params=query).status_code == 200
    expected = RenderOptions.of({"enable_thinking": False}, "tokens")
    assert statistics.asked[-1].options == renderings.asked[-1].options == expected
    for text in ("{", "[]", "x"):
        answer = client.get(f"/api/datasets/{dataset}/rendered", params={"chat_template_kwargs": text})
        assert answer.status_code == 400
        assert "is no JSON object of the template's variables" in answer.json()["detail"]
