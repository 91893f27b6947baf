"""Bodies about datasets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import ConfigDict, Field

from sienn_ray.api.schemas.common import DATASET_ID, ResponseBody, Timestamp
from sienn_ray.api.schemas.revisions import REVISION
from sienn_ray.jobs.schema import DatasetRecord

_EXAMPLE_ROW = {
    "instruction": "What is Python?",
    "response": "Python is a high-level programming language...",
}
_EXAMPLE_TEXT_ROW = {
    "row": 0,
    "line": 2,
    "messages": None,
    "text": "Once upon a time",
    "rejected": None,
    "truncated": False,
}
_EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_EXAMPLE_SUMMARY = {
    "id": DATASET_ID,
    "filename": "conversations.csv",
    "size_bytes": 102400,
    "status": "uploaded",
    "created_at": "2025-11-12T10:30:00.000Z",
    "format": "instruction-response",
    "num_rows": 1319,
    "duplicate_of": None,
}
_DUPLICATE_OF = "Id of the oldest dataset with the same bytes that was there when this one came; null without one."


class DatasetOrigin(ResponseBody):
    """The version that a dataset is, and where its rows come from."""

    version: int = Field(
        1, description="Its number among the versions of one dataset; most have only one.", examples=[1]
    )
    version_of: str | None = Field(
        None, description="The UUID of the dataset's first version; null of that one.", examples=[None, DATASET_ID]
    )
    change: str | None = Field(
        None,
        description="How a later version was made: `append` or `replace`.",
        examples=[None, "append"],
    )
    appended_to: str | None = Field(
        None,
        description="The UUID of the version that this one has all rows of, before those of its file.",
        examples=[None, DATASET_ID],
    )
    source: str | None = Field(
        None,
        description="The dataset on the Hugging Face hub that the rows were imported from.",
        examples=[None, "hf:owner/name"],
    )
    source_revision: str | None = Field(None, description="The commit that the import read.", examples=[None, REVISION])


class DatasetSummary(DatasetOrigin):
    """One dataset in a list."""

    id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    filename: str = Field(
        description="The file's name without folders and control characters, at most 255 characters.",
        examples=["conversations.csv"],
    )
    size_bytes: int = Field(description="Size of the file as it came.", examples=[102400])
    status: str = Field(description="`uploaded`: the file is whole and every row is good.", examples=["uploaded"])
    created_at: Timestamp
    format: str = Field(description="The detected column set.", examples=["instruction-response"])
    num_rows: int = Field(description="Rows in the file.", examples=[1319])
    duplicate_of: str | None = Field(description=_DUPLICATE_OF, examples=[None, DATASET_ID])


class DatasetList(ResponseBody):
    """Datasets, the newest first."""

    datasets: list[DatasetSummary] = Field(description="All of them, or one page.", examples=[[_EXAMPLE_SUMMARY]])
    count: int = Field(description="Number of datasets, on all pages.", examples=[15])
    next_cursor: str | None = Field(
        description="`cursor` of the next page; null after the last one.", examples=["NDI="]
    )


class FileReadingBody(ResponseBody):
    """Guesses and notes on how a file was read."""

    guessed: dict[str, str] = Field(
        default_factory=dict,
        description="What was told from the file's content though it might have been otherwise, such as its "
        "`separator`; give the form's field of that name to have it read in another way.",
        examples=[{"separator": ";"}],
    )
    ignored_columns: list[str] = Field(
        default_factory=list,
        description="Columns that training reads nothing from, at most 100.",
        examples=[["id", "source"]],
    )
    notes: list[str] = Field(
        default_factory=list,
        description="Other things that one should know of the file, at most 20.",
        examples=[["3 blank rows were left out, the first one in line 3"]],
    )


class DatasetDetail(DatasetSummary, FileReadingBody):
    """One dataset with what is in it."""

    reading_options: dict[str, Any] = Field(
        default_factory=dict,
        description="The upload's `encoding`, `separator` and `columns`, those of them that were given.",
        examples=[{"encoding": "windows-1252", "columns": {"Frage": "question"}}],
    )

    sha256: str = Field(description="SHA-256 of the file as it came, in hex.", examples=[_EXAMPLE_SHA256])
    columns: list[str] = Field(
        description="Columns of the first row, at most 100.", examples=[["instruction", "response"]]
    )
    preview: list[dict[str, Any]] = Field(
        description="The first rows as they are in the file; long values are cut.", examples=[[_EXAMPLE_ROW]]
    )


class UploadDatasetResponse(FileReadingBody, DatasetOrigin):
    """A dataset that was uploaded."""

    dataset_id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    filename: str = Field(
        description="The file's name without folders and control characters, at most 255 characters.",
        examples=["conversations.csv"],
    )
    size_bytes: int = Field(description="Size of the file.", examples=[102400])
    status: str = Field(description="`uploaded`: the file is whole and every row is good.", examples=["uploaded"])
    preview: list[dict[str, Any]] = Field(
        description="The first rows as they are in the file; long values are cut.", examples=[[_EXAMPLE_ROW]]
    )
    created_at: Timestamp
    format: str = Field(description="The detected column set.", examples=["instruction-response"])
    columns: list[str] = Field(
        description="Columns of the first row, at most 100.", examples=[["instruction", "response"]]
    )
    num_rows: int = Field(description="Rows in the file.", examples=[1319])
    sha256: str = Field(description="SHA-256 of the file, in hex.", examples=[_EXAMPLE_SHA256])
    duplicate_of: str | None = Field(description=_DUPLICATE_OF, examples=[None, DATASET_ID])


def with_reading(record: DatasetRecord, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a record's fields, and beside them how its file was read."""
    return {
        **record.model_dump(exclude={*without, "reading"}),
        **record.reading.model_dump(exclude={"options"}),
        "reading_options": record.reading.options,
    }


class RowError(ResponseBody):
    """An error for which a file is refused."""

    line: int | None = Field(
        description="1-based line (CSV, JSONL) or row (JSON array, Parquet); null where it is the whole file's.",
        examples=[7],
    )
    message: str = Field(
        description="What is wrong there, and the way out.",
        examples=["line 7: the row has 3 fields, but the header has 2 columns"],
    )


class ValidationReport(FileReadingBody):
    """The content of a file, and its errors."""

    valid: bool = Field(description="Whether an upload of this file would be accepted.", examples=[False])
    filename: str = Field(description="The file's name, cleaned as an upload's.", examples=["conversations.csv"])
    size_bytes: int = Field(description="Size of the file.", examples=[102400])
    format: str | None = Field(
        description="The detected column set; null where no row could be read.", examples=["instruction-response"]
    )
    columns: list[str] = Field(
        description="Columns of the first row that could be read, at most 100.", examples=[["instruction", "response"]]
    )
    num_rows: int = Field(description="Rows that were read, good and bad.", examples=[1319])
    num_bad_rows: int = Field(description="Rows with an error.", examples=[1])
    errors: list[RowError] = Field(
        description="The first errors in the order of the file: at most 20 rows', and behind them what kept the "
        "rest of the file from being read, if anything did.",
        examples=[[{"line": 7, "message": "line 7: the row has 3 fields, but the header has 2 columns"}]],
    )
    complete: bool = Field(description="Whether the file was read to its end.", examples=[True])
    preview: list[dict[str, Any]] = Field(
        description="The first good rows as they are in the file; long values are cut.", examples=[[_EXAMPLE_ROW]]
    )


class RowMessage(ResponseBody):
    """One turn of a conversation."""

    model_config = ConfigDict(title="ChatMessage")

    role: str = Field(description="`system`, `developer`, `user`, `assistant` or `tool`.", examples=["user"])
    content: str = Field(description="What was said.", examples=["What is Python?"])
    reasoning_content: str | None = Field(
        None, description="The assistant's reasoning before its answer; left out where there is none.", examples=[None]
    )
    tool_calls: list[dict[str, Any]] | None = Field(
        None,
        description="The assistant's calls of tools in OpenAI's form; left out where there are none.",
        examples=[None],
    )
    tool_call_id: str | None = Field(
        None, description="The call that a tool's message answers; left out where it names none.", examples=[None]
    )
    name: str | None = Field(None, description="Who speaks; left out where no name is given.", examples=[None])
    weight: int | None = Field(
        None, description="0 where an answer is read, but not learned; left out of all others.", examples=[None]
    )
    prefix: bool | None = Field(
        None,
        description="True where the next message is its rest; left out of all others.",
        examples=[None],
    )


class DatasetRow(ResponseBody):
    """One row as training reads it: a conversation or a text, the other one is null."""

    row: int = Field(description="0-based number.", examples=[0])
    line: int = Field(description="1-based line (CSV, JSONL) or row (JSON array, Parquet) in the file.", examples=[2])
    messages: list[RowMessage] | None = Field(
        description="The conversation.",
        examples=[
            [
                {"role": "user", "content": "What is Python?"},
                {"role": "assistant", "content": "Python is a high-level programming language..."},
            ]
        ],
    )
    text: str | None = Field(description="The text.", examples=[None])
    rejected: str | None = Field(
        description="In a preference dataset, the answer that the last message is preferred to; else null.",
        examples=[None],
    )
    rejected_message: RowMessage | None = Field(
        None,
        description="That answer as a message, where it is more than text; left out of other rows.",
        examples=[None],
    )
    tools: list[dict[str, Any]] | None = Field(
        None,
        description="Tools that the assistant may call, in OpenAI's form; left out where there are none, and "
        "where they have more than 20,000 characters.",
        examples=[None],
    )
    label: bool | None = Field(
        None,
        description="Whether the last message is a good answer; left out where the row doesn't say.",
        examples=[None],
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables of the chat template for this row; left out where there are none.", examples=[None]
    )
    truncated: bool = Field(
        description="Whether a string was cut at 2,000 characters, a list at 50 messages or calls, or tools were left "
        "out.",
        examples=[False],
    )


class DatasetRows(ResponseBody):
    """Some rows, in order."""

    dataset_id: str = Field(description="The dataset's UUID.", examples=[DATASET_ID])
    rows: list[DatasetRow] = Field(
        description="This page.",
        examples=[[_EXAMPLE_TEXT_ROW]],
    )
    num_rows: int = Field(description="Rows of the dataset.", examples=[1319])
    next_offset: int | None = Field(
        description="`offset` of the next page; null after the last one.", examples=[20, None]
    )


class DatasetVersions(ResponseBody):
    """All versions of a dataset, the first one first."""

    dataset_id: str = Field(description="The UUID of the first version.", examples=[DATASET_ID])
    versions: list[DatasetSummary] = Field(
        description="Each has an `id` of its own, by which jobs name it.", examples=[[_EXAMPLE_SUMMARY]]
    )
    count: int = Field(description="Number of versions.", examples=[1])


class RowChange(ResponseBody):
    """A row with the same prompt and another answer."""

    before: DatasetRow = Field(description="The row in the earlier version.", examples=[_EXAMPLE_TEXT_ROW])
    after: DatasetRow = Field(description="The row in the later version.", examples=[_EXAMPLE_TEXT_ROW])


class DatasetDifferences(ResponseBody):
    """Differences between two versions of a dataset."""

    dataset_id: str = Field(description="The UUID of the first version.", examples=[DATASET_ID])
    from_version: int = Field(description="The earlier version.", examples=[1])
    to_version: int = Field(description="The later version.", examples=[2])
    num_added: int = Field(description="Rows that only the later version has.", examples=[12])
    num_removed: int = Field(description="Rows that only the earlier version has.", examples=[0])
    num_changed: int = Field(
        description="Rows with the same prompt and another answer; these are neither added nor removed.", examples=[3]
    )
    num_same: int = Field(description="Rows that both versions have.", examples=[1316])
    added: list[DatasetRow] = Field(
        description="The first of the added rows, at most 5.", examples=[[_EXAMPLE_TEXT_ROW]]
    )
    removed: list[DatasetRow] = Field(description="The first of the removed rows, at most 5.", examples=[[]])
    changed: list[RowChange] = Field(
        description="The first of the changed rows, at most 5; texts have no prompt, and are never changed.",
        examples=[[]],
    )


class DeletedDataset(ResponseBody):
    """A dataset that was deleted."""

    dataset_id: str = Field(description="The UUID it had.", examples=[DATASET_ID])
    deleted: bool = Field(description="Always true.", examples=[True])
