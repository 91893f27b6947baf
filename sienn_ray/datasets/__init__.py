"""Datasets: from a user's file over checked rows to tokens.

Rows:

schema: the canonical row, and its schema in storage.
shapes/: rows under the names that people have for them.
canonical: a canonical row from a user's, by its format.
columns: names of columns, compared.
values: single values, checked.
unread: values that have no form in JSON.
chat_rows: conversations with their tools, checked.
messages: messages of a conversation, checked.
contents: contents of messages, in parts or not.
tool_calls: tools and their calls, checked.
turns: order of the turns of a conversation.
json_values: JSON values within a row.
preference: rows with a better and a worse answer.

Files:

intake: a file into storage, with its checked rows.
dataset_keys: the storage keys of a dataset.
leftovers: uploads that were never finished.
ingest: from a file to Parquet, in one pass.
reading_options: encoding, separator and columns, where a user says so.
text_encodings: encodings that a file may have.
file_notes: guesses and other notes on a file.
files/: files as users have them, told by name and content.
readers: rows of files, and of JSONL files.
text_file: rows of plain text.
json_array: rows of a JSON array.
json_hints: the way out of usual mistakes in JSON.
json_wrapper: rows of an array within an object.
shared_values: values beside those rows, which each of them has.
json_events: rows built from parse events.
strict_json: JSON, parsed strictly.
utf8: lines of UTF-8, a chunk at a time.
faults: the faults of a file.
wording: wording of error messages.
preview: rows as people see them.
row_writer: canonical rows as Parquet.
stored_rows: rows as they are read from storage.
row_pages: some of a dataset's rows.
raw_rows: stored rows as lines of JSONL.
hub_source: names of datasets on the hub.
hub_files: the data files of a dataset on the hub.
hub_import: rows of a dataset on the hub, taken into storage.
joining: the rows of several datasets as one.
differences: rows that were added, removed or changed.

Tokens:

prompt: the format of prompts, in training and in generation.
render_options: options of how rows become text.
rendering: conversations rendered by a chat template, and what that leaves out.
template_input: messages and tools in the form of a chat template.
content_form: the form in which a chat template takes messages.
tool_form: the form in which it takes tools, calls, results and reasoning.
template_probes: trials of chat templates.
end_marks: marks that end a text or an answer.
literal_text: special tokens that users write, which stay text.
answers: what the model has to produce behind a prompt.
chat_turns: a chat template as the strings around each turn.
tokenization: `input_ids` and `labels` of a row.
row_order: the order of rows in training.
weights: weights of datasets in a mixture.
mixture_order: the order of the rows of several datasets, by weight.
mixed_rows: rows of several datasets, numbered one behind the other.
row_lengths: policies for rows that are too long.
row_splits: rows that are too long, split into several examples.
row_tokens: the examples that training makes of a row.
token_stream: rows from storage, tokenized while training runs (Ray Data).
rendered_schema: rows as the model reads them, and the question for some of them.
rendered_rows: rows as the model reads them, rendered.
token_text: the characters of each token, and what becomes of them.

Statistics:

statistics_schema: the statistics of a dataset, and their keys in storage.
statistics: every row measured on the cluster (Ray Data).
measure: measures of a single row.
histogram: exact totals and percentiles.
duplicates: rows that repeat an earlier one.
"""
