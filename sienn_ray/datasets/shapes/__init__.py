"""Shapes of datasets: the same rows under the names that people have for them.

names: names of columns, and the parts of a row that they are.
table: sets of columns that make a dataset.
detection: the shape of a dataset from its columns.
layout: where the parts of a row are.
fields: values of the parts of a row.
reader: rows in their stored form.
plain_rows: rows that are nothing but strings.

Parts:

pairs: a prompt and its completion; conversations.
preferences: a better and a worse answer.
turns: messages under other keys.
roles: words for who speaks.
labels: whether an answer is a good one.
embedded_json: lists in the strings of a CSV file.
rendered_text: marks of chat templates in text.
findings: what a user should know of the rows.
"""
