"""Files as users have them, read as rows: told by name and content.

choice: the reader of a file, by its name and its content.
extensions: endings of file names.
sources: the beginning of a file, looked at before it is read.
unpacked: content of gzip and Zstandard files, bounded.
transcoded: text in another encoding, as UTF-8.
foreign: files of kinds that can't be read.
known_columns: columns that make rows.
separators: separators of CSV, told from the first line.
csv_rows: rows of CSV files.
csv_faults: faults of CSV rows in words.
json_layout: layouts of JSON in a file.
spread_json: rows of JSON objects that are spread over lines.
parquet_rows: rows of Parquet files.
parquet_limits: limits on the memory that Parquet takes.
parquet_sizes: sizes of Arrow's values.
"""
