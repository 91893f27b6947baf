"""Policies for rows with more than `max_length` tokens."""

from __future__ import annotations

from typing import Literal

# `fail` refuses the dataset before any row is trained on; where rows are read all the same, it cuts them.
LongRows = Literal["cut", "drop", "split", "fail"]
