"""Without Ray: parts are tokenized in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.chat_rows import chat_row
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.row_order import NO_ROWS, RowNumbers, RowOrder
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, Message, Role
from sienn_ray.datasets.stored_rows import CONTENT_COLUMNS
from sienn_ray.datasets.token_stream import Share, StoredRows, TokenArrays, TokenStream
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.storage import Storage
from tests.support.tiny_model import save_strict_model

KEY = "datasets/d/rows.parquet"
LONG = "word " * 400
NUM_ROWS = 23
GROUP_ROWS = 5

Step = tuple[int, list[TokenArrays]]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


@dataclass(frozen=True)
class InProcess(TokenStream):
    """A stream whose parts are tokenized where they are wanted."""

    rows: StoredRows
    order: RowOrder

    def _blocks(self, share: Share, first_step: int, num_steps: int) -> Iterator[pa.Table]:
        for part in self._parts(share, first_step, num_steps):
            yield self.tokenize(part, share)


def chat(prompt: str, answer: str, rejected: str | None = None, system: str | None = None) -> CanonicalRow:
    before = () if system is None else (Message(Role.SYSTEM, system),)
    other = None if rejected is None else Message(Role.ASSISTANT, rejected)
    return CanonicalRow((*before, Message(Role.USER, prompt), Message(Role.ASSISTANT, answer)), rejected=other)


def numbered(num_rows: int = NUM_ROWS) -> list[CanonicalRow]:
    return [chat(f"question {number}", f"answer {number}") for number in range(num_rows)]


def store(folder: Path, rows: Sequence[CanonicalRow], group_rows: int = GROUP_ROWS) -> StoredRows:
    storage = Storage(f"file://{folder}")
    with storage.writing(KEY) as file, RowWriter(file) as writer:
        for number, row in enumerate(rows):
            writer.add(row, number + 1, [])
    path = storage.path(KEY)
    pq.write_table(pq.read_table(path), path, row_group_size=group_rows)  # the writer's groups have thousands of rows
    return StoredRows(storage, KEY)


def stream_of(
    rows: StoredRows, tokenizer: Any, *, seed: int | None = 7, excluded: RowNumbers = NO_ROWS, max_length: int = 128
) -> InProcess:
    """A stream over windows of two row groups."""
    numbers = range(len(rows.groups))
    windows = tuple(tuple(numbers[start : start + 2]) for start in numbers[::2])
    order = RowOrder(windows, rows.groups, seed, excluded)
    return InProcess(rows, order, tokenizer, PromptFormat.for_chat(tokenizer), max_length)


@pytest.fixture
def stream(tmp_path: Path, tokenizer: Any) -> InProcess:
    return stream_of(store(tmp_path, numbered()), tokenizer)


def answer_of(tokenizer: Any, row: TokenArrays) -> str:
    return str(tokenizer.decode([label for label in row[1] if label != IGNORE_INDEX], skip_special_tokens=True))


def numbers_of(tokenizer: Any, rows: Sequence[TokenArrays]) -> list[int]:
    return [int(answer_of(tokenizer, row).removeprefix("answer ")) for row in rows]


def all_steps(stream: TokenStream, share: Share, num_steps: int, first_step: int = 0) -> list[Step]:
    return list(stream.steps(share, first_step=first_step, num_steps=num_steps))


class TestStoredRows:
    def test_groups_are_those_of_the_file(self, stream: InProcess) -> None:
        groups = stream.rows.groups
        assert [(group.first_row, group.num_rows) for group in groups] == [(0, 5), (5, 5), (10, 5), (15, 5), (20, 3)]
        assert all(group.num_bytes > 100 for group in groups)
        assert stream.rows.num_rows == NUM_ROWS

    @pytest.mark.parametrize(
        ("groups", "wanted"),
        [
            ((0, 1, 2, 3, 4), [22, 0, 7, 13, 1, 21, 5]),
            ((1, 3), [19, 5, 15, 9]),
            ((3, 1), [19, 5, 15, 9]),
            ((4,), [20, 22]),
            ((2,), [12, 12]),
            ((2,), []),
        ],
    )
    def test_rows_come_by_their_numbers_in_the_order_asked_for(
        self, stream: InProcess, groups: tuple[int, ...], wanted: list[int]
    ) -> None:
        table = stream.rows.take(groups, np.array(wanted, dtype=np.int64))
        assert [row["messages"][-1]["content"] for row in table.to_pylist()] == [f"answer {row}" for row in wanted]

    def test_only_what_is_tokenized_is_read(self, stream: InProcess) -> None:
        assert stream.rows.take((0,), np.array([0])).column_names == list(CONTENT_COLUMNS)

    def test_files_of_before_preferences_can_be_read(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, numbered(4))
        new = all_steps(stream_of(rows, tokenizer), Share(2), 2)
        path = rows.storage.path(KEY)
        newer = ["rejected", "empty_columns", "rejected_extra", "tools", "label", "chat_template_kwargs"]
        pq.write_table(pq.read_table(path).drop(newer), path)
        assert all_steps(stream_of(StoredRows(rows.storage, KEY), tokenizer), Share(2), 2) == new


class TestShare:
    @pytest.mark.parametrize(("num_rows", "steps"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
    def test_an_epoch_s_last_step_may_have_fewer_rows(self, num_rows: int, steps: int) -> None:
        assert Share(4).steps_per_epoch(num_rows) == steps

    @pytest.mark.parametrize(("rows_per_step", "world_size"), [(4, 1), (4, 2), (5, 2), (7, 3), (2, 4), (1, 3)])
    def test_every_position_is_one_worker_s(self, rows_per_step: int, world_size: int) -> None:
        positions = np.arange(100)
        own = np.stack([Share(rows_per_step, rank, world_size).is_own(positions) for rank in range(world_size)])
        assert np.all(own.sum(axis=0) == 1)
        for start in range(0, 100 // rows_per_step * rows_per_step, rows_per_step):
            counts = own[:, start : start + rows_per_step].sum(axis=1)
            assert counts.max() - counts.min() <= 1


class TestSteps:
    @pytest.mark.parametrize("rows_per_step", [1, 4, 8, 100])
    def test_each_epoch_has_every_row_once(self, stream: InProcess, tokenizer: Any, rows_per_step: int) -> None:
        share = Share(rows_per_step)
        per_epoch = share.steps_per_epoch(NUM_ROWS)
        steps = all_steps(stream, share, 3 * per_epoch)
        assert [step for step, _ in steps] == list(range(3 * per_epoch))
        epochs = [steps[start : start + per_epoch] for start in range(0, len(steps), per_epoch)]
        orders = [numbers_of(tokenizer, [row for _, rows in epoch for row in rows]) for epoch in epochs]
        assert all(sorted(order) == list(range(NUM_ROWS)) for order in orders)
        assert orders[0] != orders[1] != orders[2]
        assert all(len(rows) == rows_per_step for epoch in epochs for _, rows in epoch[:-1])

    def test_without_a_seed_it_is_the_dataset_s_order(self, stream: InProcess, tokenizer: Any) -> None:
        plain = replace(stream, order=replace(stream.order, seed=None))
        rows = [row for _, rows in all_steps(plain, Share(4), 6) for row in rows]
        assert numbers_of(tokenizer, rows) == list(range(NUM_ROWS))

    def test_excluded_rows_are_left_out(self, tmp_path: Path, tokenizer: Any) -> None:
        excluded = np.array([0, 7, 8, 22])
        stream = stream_of(store(tmp_path, numbered()), tokenizer, excluded=excluded)
        for is_inverted, expected in ((False, set(range(NUM_ROWS)) - set(excluded.tolist())), (True, set(excluded))):
            part = replace(stream, order=replace(stream.order, is_inverted=is_inverted))
            steps = all_steps(part, Share(5), Share(5).steps_per_epoch(len(expected)))
            assert sorted(numbers_of(tokenizer, [row for _, rows in steps for row in rows])) == sorted(expected)

    @pytest.mark.parametrize("world_size", [2, 3, 5])
    @pytest.mark.parametrize("rows_per_step", [2, 4, 9])
    def test_workers_together_have_the_rows_of_one(
        self, stream: InProcess, rows_per_step: int, world_size: int
    ) -> None:
        num_steps = 2 * Share(rows_per_step).steps_per_epoch(NUM_ROWS)
        alone = all_steps(stream, Share(rows_per_step), num_steps)
        shares = [Share(rows_per_step, rank, world_size) for rank in range(world_size)]
        together = [all_steps(stream, share, num_steps) for share in shares]
        for (step, rows), *parts in zip(alone, *together, strict=True):
            assert [number for number, _ in parts] == [step] * world_size
            assert sorted(rows) == sorted(row for _, own in parts for row in own)
            sizes = [len(own) for _, own in parts]
            assert max(sizes) - min(sizes) <= 1

    @pytest.mark.parametrize("share", [Share(4), Share(4, 1, 2), Share(9, 2, 3)])
    def test_it_goes_on_from_every_step(self, stream: InProcess, share: Share) -> None:
        num_steps = 2 * share.steps_per_epoch(NUM_ROWS)
        whole = all_steps(stream, share, num_steps)
        for first_step in range(num_steps + 1):
            assert all_steps(stream, share, num_steps, first_step) == whole[first_step:]

    def test_a_finished_run_reads_nothing(self, stream: InProcess) -> None:
        assert list(stream._parts(Share(4), 12, 12)) == []

    def test_a_worker_may_have_nothing_to_do_in_a_step(self, stream: InProcess) -> None:
        """Of a step's two rows, the third worker never gets any."""
        steps = all_steps(stream, Share(2, 2, 3), 24)
        assert steps == [(step, []) for step in range(24)]

    def test_or_only_in_an_epoch_s_last_one(self, stream: InProcess) -> None:
        """With 23 rows and 4 a step, the last step of an epoch has 3."""
        steps = all_steps(stream, Share(4, 3, 4), 12)
        assert [step for step, _ in steps] == list(range(12))
        assert [len(rows) for _, rows in steps] == [1, 1, 1, 1, 1, 0] * 2

    def test_no_rows_at_all_are_empty_steps(self, tmp_path: Path, tokenizer: Any) -> None:
        stream = stream_of(store(tmp_path, numbered(3)), tokenizer, excluded=np.arange(3))
        assert all_steps(stream, Share(4), 2) == [(0, []), (1, [])]


class TestTokens:
    def test_what_is_learned_is_the_answer(self, stream: InProcess, tokenizer: Any) -> None:
        ((_, rows), *_) = all_steps(stream, Share(4), 1)
        for input_ids, labels, *_ in rows:
            learned = [(token, label) for token, label in zip(input_ids, labels, strict=True) if label != IGNORE_INDEX]
            assert all(token == label for token, label in learned)
            assert learned[-1][0] == tokenizer.eos_token_id
            assert "question" in tokenizer.decode(input_ids)

    def test_rows_without_room_for_an_answer_come_out_empty(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [chat("a", "answer 0"), chat(LONG, "answer 1"), chat("b", "answer 2")])
        ((_, found),) = all_steps(stream_of(rows, tokenizer, seed=None), Share(3), 1)
        assert found[1][:2] == ([], [])
        assert [row.num_over > 0 for row in found] == [False, True, False]
        assert numbers_of(tokenizer, [found[0], found[2]]) == [0, 2]

    def test_rows_that_are_too_long_are_left_out_where_asked(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [chat("a", "answer 0"), chat("b", LONG), chat("c", "answer 2")])
        stream = replace(stream_of(rows, tokenizer, seed=None), long_rows="drop")
        ((_, found),) = all_steps(stream, Share(3), 1)
        assert found[1][:2] == ([], [])
        assert [row.num_over > 0 for row in found] == [False, True, False]

    def test_a_split_row_is_in_its_step_with_all_its_pieces(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [CanonicalRow(text=LONG if number % 3 == 0 else "short") for number in range(9)])
        stream = replace(
            stream_of(rows, tokenizer, max_length=128), prompt_format=PromptFormat.for_text(), long_rows="split"
        )
        for share in (Share(2), Share(2, 1, 2)):
            whole = all_steps(stream, share, 10)
            for first_step in range(11):
                assert all_steps(stream, share, 10, first_step) == whole[first_step:]
        steps = all_steps(stream, Share(2), 5)
        assert sum(row.is_split for _, found in steps for row in found) == 3
        assert sum(len(found) for _, found in steps) > 9 + 3
        assert not any(row.num_over for _, found in steps for row in found)

    def test_rows_are_cut(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [chat("a", LONG)])
        ((_, (row,)),) = all_steps(stream_of(rows, tokenizer, max_length=64), Share(1), 1)
        assert [len(column) for column in row[:2]] == [64, 64]
        assert row.num_over > 300

    def test_plain_text_is_learned_whole(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [CanonicalRow(text="once upon a time")])
        stream = replace(stream_of(rows, tokenizer), prompt_format=PromptFormat.for_text())
        ((_, ((input_ids, labels, *_),)),) = all_steps(stream, Share(1), 1)
        assert input_ids == labels
        assert tokenizer.decode(input_ids, skip_special_tokens=True) == "once upon a time"

    def test_tools_are_read_and_answers_of_weight_0_are_not_learned(self, tmp_path: Path, tokenizer: Any) -> None:
        row = chat_row(
            [
                {"role": "user", "content": "Is there rye?"},
                {"role": "assistant", "content": "Go away.", "weight": 0},
                {"role": "user", "content": "Please?"},
                {"role": "assistant", "content": None, "tool_calls": [{"name": "stock", "arguments": {"item": "rye"}}]},
            ],
            tools=[{"name": "stock"}],
        )
        template = (
            "{{ tools | tojson }}{% for message in messages %}[{{ message.role }}]{{ message.content }}"
            "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}"
        )
        stream = stream_of(store(tmp_path, [row]), tokenizer, max_length=512)
        stream = replace(stream, prompt_format=PromptFormat(PromptKind.CHAT, template))
        ((_, (found,)),) = all_steps(stream, Share(1), 1)
        text = tokenizer.decode(found.input_ids)
        assert text.startswith('[{"type": "function", "function": {"name": "stock"}}][user]Is there rye?[assistant]Go ')
        assert answer_of(tokenizer, found) == '{"name": "stock", "arguments": {"item": "rye"}}'

    def test_a_preference_is_the_chosen_row_and_then_the_rejected_one(self, tmp_path: Path, tokenizer: Any) -> None:
        pairs = [chat(f"question {number}", f"yes {number}", f"no {number}") for number in range(7)]
        stream = stream_of(store(tmp_path, pairs, group_rows=2), tokenizer)
        found = [row for _, rows in all_steps(stream, Share(2), 4) for row in rows]
        answers = [answer_of(tokenizer, row).split() for row in found]
        assert [word for word, _ in answers] == ["yes", "no"] * 7
        assert [number for _, number in answers[::2]] == [number for _, number in answers[1::2]]
        assert sorted(number for _, number in answers[::2]) == [str(number) for number in range(7)]

    def test_steps_count_preferences_not_rows(self, tmp_path: Path, tokenizer: Any) -> None:
        stream = stream_of(store(tmp_path, [chat("q", "yes", "no")] * 5), tokenizer)
        assert [len(rows) for _, rows in all_steps(stream, Share(2), 3)] == [4, 4, 2]
        assert [len(rows) for _, rows in all_steps(stream, Share(2, 1, 2), 3)] == [2, 2, 0]

    def test_a_preference_without_room_is_empty_once(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = store(tmp_path, [chat("q", "yes", "no"), chat(LONG, "yes", "no"), chat("q", "well", "no")])
        ((_, found),) = all_steps(stream_of(rows, tokenizer, seed=None), Share(3), 1)
        assert found[2][:2] == ([], [])
        assert [answer_of(tokenizer, found[number]) for number in (0, 1, 3, 4)] == ["yes", "no", "well", "no"]

    def test_a_labelled_answer_comes_with_its_label(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = [CanonicalRow(chat("q", f"{label}").messages, label=label) for label in (True, False, True)]
        stream = stream_of(store(tmp_path, rows), tokenizer, seed=None)
        ((_, found),) = all_steps(stream, Share(3), 1)
        assert [row.is_desirable for row in found] == [True, False, True]
        assert [answer_of(tokenizer, row) for row in found] == ["True", "False", "True"]

    def test_only_the_last_answer_is_labelled(self, tmp_path: Path, tokenizer: Any) -> None:
        turns = [Message(role, text) for text in ("first", "second") for role in (Role.USER, Role.ASSISTANT)]
        stream = stream_of(store(tmp_path, [CanonicalRow(tuple(turns), label=False)]), tokenizer)
        ((_, (row,)),) = all_steps(stream, Share(1), 1)
        assert answer_of(tokenizer, row) == "second"
        assert not row.is_desirable

    def test_a_preference_is_unpaired_where_asked(self, tmp_path: Path, tokenizer: Any) -> None:
        rows = [chat("q", "yes", "no"), chat("q", LONG, "no"), chat(LONG, "yes", "no")]
        stream = replace(stream_of(store(tmp_path, rows), tokenizer, seed=None), unpairs=True)
        ((_, found),) = all_steps(stream, Share(3), 1)
        assert [row.is_desirable for row in found[:4]] == [True, False, True, False]
        assert [bool(row.input_ids) for row in found] == [True, True, True, True, False]
        assert [row.num_over > 0 for row in found] == [False, False, False, True, True]

    def test_tokens_that_both_sides_lose_count_whether_unpaired_or_not(self, tmp_path: Path, tokenizer: Any) -> None:
        paired = stream_of(store(tmp_path, [chat("q", LONG, LONG + LONG)]), tokenizer, seed=None)
        lost = []
        for stream in (paired, replace(paired, unpairs=True)):
            ((_, found),) = all_steps(stream, Share(1), 1)
            lost.append(sum(row.num_over for row in found))
        assert lost[0] == lost[1] > 0

    @pytest.mark.parametrize("rejected", [None, "no"])
    def test_what_the_chat_template_refuses_is_said(
        self, tiny_model_folder: Path, tmp_path: Path, rejected: str | None
    ) -> None:
        save_strict_model(tiny_model_folder, tmp_path / "strict")
        rows = store(tmp_path / "storage", [chat("a", "b", rejected, system="be brief")])
        stream = stream_of(rows, load_tokenizer(tmp_path / "strict"))
        with pytest.raises(InvalidDatasetError, match="chat template refuses a conversation: Brief answers"):
            all_steps(stream, Share(1), 1)
