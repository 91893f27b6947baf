from __future__ import annotations

import random

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.mismatched import Parts, mismatched, parts_of

PARTS: list[Parts] = [((number, 50), (100 + number, 2)) for number in range(6)]


def prompts_and_answers(examples: list[Example]) -> list[Parts]:
    return [parts_of(example) for example in examples]


def test_an_example_is_divided_before_its_first_label() -> None:
    row = ([5, 6, 7, 8], [IGNORE_INDEX, IGNORE_INDEX, 7, 8])
    assert parts_of(Example((row,))) == ((5, 6), (7, 8))


def test_each_prompt_gets_one_answer_to_another_prompt() -> None:
    found = prompts_and_answers(mismatched(PARTS, PARTS, 64))
    assert [prompt for prompt, _ in found] == [prompt for prompt, _ in PARTS]
    assert sorted(answer for _, answer in found) == sorted(answer for _, answer in PARTS)
    assert all(found[number][1] != PARTS[number][1] for number in range(len(PARTS)))


def test_they_are_the_same_in_any_order_and_on_any_number_of_workers() -> None:
    whole = prompts_and_answers(mismatched(PARTS, PARTS, 64))
    shuffled = random.Random(1).sample(PARTS, len(PARTS))
    first, second = mismatched(PARTS[:2], shuffled, 64), mismatched(PARTS[2:], shuffled, 64)
    assert prompts_and_answers(first) + prompts_and_answers(second) == whole


def test_another_answer_to_the_same_prompt_matches() -> None:
    both: list[Parts] = [((1,), (7, 2)), ((1,), (8, 2)), ((3,), (9, 2))]
    found = mismatched(both, both, 64)
    assert [answer for _, answer in prompts_and_answers(found[:2])] == [(9, 2), (9, 2)]


def test_a_prompt_alone_has_none() -> None:
    same: list[Parts] = [((1,), (7, 2)), ((1,), (8, 2))]
    assert mismatched(same, same, 64) == []
    assert mismatched(PARTS[:1], PARTS[:1], 64) == []
    assert mismatched([], PARTS, 64) == []


def test_what_is_too_long_is_cut_and_left_out_where_no_answer_stays() -> None:
    parts: list[Parts] = [((1, 2, 3), (4,)), ((5,), (6, 7, 8))]
    found = mismatched(parts, parts, 4)
    assert [example.rows[0][0] for example in found] == [(1, 2, 3, 6), (5, 4)]
    assert [len(example.rows[0][0]) for example in mismatched(parts, parts, 3)] == [2]
