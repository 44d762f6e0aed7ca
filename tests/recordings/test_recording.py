"""Recordings: what a mapping makes of the files that people have."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from recording_files import PAIRS, ROWS, put, write

from rlaif import recordings
from rlaif.errors import ConfigError, DataError, UserError
from rlaif.judges.patterns import pattern_choice, pattern_form
from rlaif.recordings import Recording, load, read_gold
from rlaif.records import Reply, make_id


def changed(**parts: Any) -> dict[str, Any]:
    """PAIRS with other parts; None leaves one out."""
    said = copy.deepcopy(PAIRS) | parts
    return {name: value for name, value in said.items() if value is not None}


def verdicts(recording: Recording) -> dict[tuple[str, ...], str | None]:
    """(prompt, the responses' own ids as shown) → A, B or C."""
    assert recording.parse is not None
    choice = pattern_choice(recording.parse)
    own = {r.id: str(r.meta["id"]) for found in recording.responses.values() for r in found}
    return {
        (prompt, *(own[name] for name in ids)): choice.parse(replies[0]).label
        for (prompt, *ids), replies in recording.replies.items()
    }


def test_one_row_a_pair_in_both_orders(tmp_path: Path) -> None:
    found = load(write(tmp_path, PAIRS))
    assert [(p.id, p.text) for p in found.prompts] == [("1", "Why is the sky blue?"), ("2", "Is 7 prime?")]
    assert [(r.text, r.source, r.meta) for r in found.responses["1"]] == [
        ("Light scatters.", "small", {"id": "1"}),
        ("The sea.", "big", {"id": "2"}),
    ]
    assert found.responses["1"][0].id == make_id("1", "1"), "as a plain file with the same ids would have it"
    assert verdicts(found) == {("1", "1", "2"): "A", ("1", "2", "1"): "B", ("2", "1", "2"): "B"}
    assert found.models == ["judge-7b"]


@pytest.mark.parametrize(
    "name", ["rows.csv", "rows.parquet", "rows.json", "rows.jsonl.gz", "rows.json.gz", "deep.json"]
)
def test_the_format_makes_no_difference(tmp_path: Path, name: str) -> None:
    data: Any = name
    content: Any = ROWS
    if name == "deep.json":
        data, content = {"path": name, "rows": "result.items"}, {"result": {"items": ROWS}}
    path = write(tmp_path, changed(data=data))
    put(tmp_path / name, content)
    assert verdicts(load(path)) == {("1", "1", "2"): "A", ("1", "2", "1"): "B", ("2", "1", "2"): "B"}


def test_texts_in_other_files_found_by_id_and_several_files_of_rows(tmp_path: Path) -> None:
    answers = [{"aid": "x", "text": "No.", "model": "m1"}, {"aid": "y", "text": "Yes.", "model": "m2"}]
    said = changed(
        data={
            "path": "part*.jsonl",
            "join": {
                "one": {"path": "answers.csv", "here": "first", "there": "aid"},
                "other": {"path": "answers.csv", "here": "second", "there": "aid"},
                "question": {"path": "questions.json", "rows": "items(@)", "here": "qid", "there": "key"},
            },
        },
        prompts={"id": "qid", "text": ["question.value.text", "question.value.hint"], "domain": "_file"},
        responses=[
            {"id": "first", "text": "one.text", "source": "one.model"},
            {"id": "second", "text": "other.text", "source": "other.model"},
        ],
        replies={"shown": ["first", "second"], "text": "out"},
    )
    path = write(
        tmp_path,
        said,
        questions__json={"7": {"text": "Is 7 prime?", "hint": "Think."}},
        answers__csv=answers,
        part1__jsonl=[{"qid": 7, "first": "x", "second": "y", "out": "second"}],
        part2__jsonl=[{"qid": 7.0, "first": "y", "second": "x", "out": "first"}],
    )
    found = load(path)
    assert [(p.text, p.domain) for p in found.prompts] == [("Is 7 prime?\n\nThink.", "part1.jsonl")]
    assert verdicts(found) == {("7", "x", "y"): "B", ("7", "y", "x"): "A"}
    assert [(r.text, r.source) for r in found.responses["7"]] == [("No.", "m1"), ("Yes.", "m2")]


def test_responses_in_a_list_and_replies_in_their_own_file(tmp_path: Path) -> None:
    prompts = [{"id": "p", "text": "Hm?", "candidates": [{"name": n, "said": n * 2} for n in "abc"]}]
    replies = [
        {"about": "p", "order": ["c", "a"], "best": "a", "draw": 1},
        {"about": "p", "order": ["c", "a"], "best": "tie", "draw": 0},
        {"about": "elsewhere", "order": ["z"], "best": "z"},
    ]
    said = {
        "recording": "x",
        "prompts": {"data": "prompts.jsonl", "id": "id", "text": "text"},
        "responses": {
            "data": {"path": "prompts.jsonl", "each": "candidates"},
            "id": "_each.name",
            "text": "_each.said",
            "meta": {"place": "_index"},
        },
        "replies": {
            "data": "replies.jsonl",
            "prompt": "about",
            "shown": "order",
            "winner": "best",
            "sample": "draw",
            "map": {"tie": "tie"},
        },
    }
    found = load(write(tmp_path, said, prompts__jsonl=prompts, replies__jsonl=replies))
    assert [(r.text, r.meta) for r in found.responses["p"]] == [
        ("aa", {"id": "a", "place": 0}),
        ("bb", {"id": "b", "place": 1}),
        ("cc", {"id": "c", "place": 2}),
    ]
    ((subject, draws),) = found.replies.items()
    assert subject == ("p", make_id("p", "c"), make_id("p", "a"))
    assert [draw.text for draw in draws] == ["Verdict: C", "Verdict: B"], "in the order of their numbers"
    assert found.counts["replies rows about other prompts, left out"] == 1
    assert found.prompts[0].meta["lineups"] == [list(subject[1:])], "only this pair was recorded"


def test_several_judges_in_one_file(tmp_path: Path) -> None:
    rows = [{**row, "judge": judge} for row in ROWS for judge in ("j1", "j2")]
    said = changed(params={"judge": "j1"}, data={"path": "rows.jsonl", "where": "judge == '${judge}'"})
    path = write(tmp_path, said, rows)
    assert len(load(path).replies) == 3
    assert load(path).identity != load(path, {"judge": "j2"}).identity
    with pytest.raises(DataError, match=r"no row where judge == 'j3'; columns: q, id, a, b, out, swap, judge"):
        load(path, {"judge": "j3"})
    write(tmp_path, changed(), rows)
    with pytest.raises(
        DataError, match=r"rows.jsonl:2: replies\[0\]: a second reply .* choose one judge with `where`"
    ):
        load(path)
    write(tmp_path, changed(repeats="samples"), rows)
    assert [len(replies) for replies in load(path).replies.values()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("part", "rows", "texts"),
    [
        (
            {"verdict": "v", "map": {1: "first", 0: "tie", "bad": "none"}},
            [{"v": 1}, {"v": 0}, {"v": "bad"}, {"v": None}],
            ["Verdict: A", "Verdict: C", ""],
        ),
        (
            {"verdict": "v", "rationale": "why"},
            [{"v": "second", "why": "Verdict: A, no"}],
            ["Verdict: A, no\n\nVerdict: B"],
        ),
        (
            {"winner": "v", "map": {"same": "tie"}},
            [{"v": "one"}, {"v": "two"}, {"v": "same"}],
            ["Verdict: A", "Verdict: B", "Verdict: C"],
        ),
        (
            {"verdict": "if(a > b, 'first', if(b > a, 'second', 'tie'))"},
            [{"a": 2, "b": 1}, {"a": 1, "b": 1}],
            ["Verdict: A", "Verdict: C"],
        ),
    ],
    ids=["mapped", "rationale", "winner", "from-two-scores"],
)
def test_outcomes_that_somebody_read_already(tmp_path: Path, part: Any, rows: Any, texts: Any) -> None:
    said = {
        "recording": "x",
        "data": "rows.jsonl",
        "prompts": {"id": "_row"},
        "replies": {"shown": ["'one'", "'two'"], **part},
    }
    found = load(write(tmp_path, said, rows))
    assert [replies[0].text for replies in found.replies.values()] == texts
    read = list(verdicts(found).values())
    assert read == [text[-1:] or None for text in texts], "what is written is what is read"
    assert len({response.text for own in found.responses.values() for response in own}) == 2 * len(rows)


def test_scores_of_one_and_of_several_criteria(tmp_path: Path) -> None:
    rows = [{"m": "a", "s": "7.25", "h": 3, "t": None}, {"m": "b", "s": -1e-5, "h": 4, "t": 2.5}, {"m": "c", "s": ""}]
    said = {"recording": "x", "data": "rows.jsonl", "prompts": {"id": "'p'"}}
    one = load(write(tmp_path, {**said, "replies": {"shown": ["m"], "score": "s"}}, rows))
    assert one.parse is not None and len(one.replies) == 2 and one.counts["rows without a reply"] == 1
    assert [pattern_form(one.parse).parse(r[0]).values for r in one.replies.values()] == [
        {"score": 7.25},
        {"score": -1e-5},
    ]
    both = load(
        write(tmp_path, {**said, "replies": {"shown": ["m"], "scores": {"helpful (h)": "h", "tone": "t"}}}, rows)
    )
    assert both.parse is not None
    read = [pattern_form(both.parse).parse(r[0]) for r in both.replies.values()]
    assert [form.values for form in read] == [{"helpful (h)": 3.0, "tone": None}, {"helpful (h)": 4.0, "tone": 2.5}]
    assert read[0].unread == {"tone": "no pattern matches"}


def test_probabilities_become_log_probs(tmp_path: Path) -> None:
    said = changed(parse=None, data="rows.jsonl", replies={"shown": ["'1'", "'2'"], "probabilities": {"first": "p"}})
    found = load(write(tmp_path, said, [{**ROWS[0], "p": 0.25}]))
    ((reply,),) = found.replies.values()
    assert found.has_logprobs and found.parse is None and reply.logprobs is not None
    assert [(token, round(2.718281828459045**logprob, 9)) for token, logprob in reply.logprobs[0].top] == [
        ("B", 0.75),
        ("A", 0.25),
    ]
    with pytest.raises(DataError, match=r"probabilities: expected shares of 1, got first 1.5, second -0.5"):
        load(write(tmp_path, said, [{**ROWS[0], "p": 1.5}]))


@pytest.mark.parametrize(
    ("recorded", "ours"),
    [
        (None, "stop"),
        ("", "stop"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
        ("content_filter", "refusal"),
        ("odd", "odd"),
    ],
)
def test_why_a_text_ended(tmp_path: Path, recorded: str | None, ours: str) -> None:
    said = changed(replies={"shown": ["'1'", "'2'"], "text": "out", "finish": "f"})
    ((reply,),) = load(write(tmp_path, said, [{**ROWS[0], "f": recorded}])).replies.values()
    assert reply.finish_reason == ours


# -- gold ------------------------------------------------------------------------------------------------------------


def gold_of(folder: Path, part: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    said = {
        "recording": "x",
        "data": "rows.jsonl",
        "prompts": {"id": "id"},
        "responses": [{"id": "'a'"}, {"id": "'b'"}],
        "gold": part,
    }
    return [(g.prompt_id, g.labels, g.raters) for g in read_gold(write(folder, said, rows))]


def test_raters_in_columns_in_a_list_and_one_row_each(tmp_path: Path) -> None:
    meaning = {1: "first", 2: "second", 0: "tie", "?": "none"}
    rows = [{"id": "p", "r1": 1, "r2": 0, "all": [1, 0, "?"]}]
    assert gold_of(tmp_path, {"verdict": {"ann": "r1", "bo": "r2"}, "map": meaning}, rows) == [
        ("p", ["first", "tie"], ["ann", "bo"])
    ]
    assert gold_of(tmp_path, {"verdict": ["r1", "r2", "r3"], "map": meaning}, rows) == [
        ("p", ["first", "tie", None], [])
    ]
    assert gold_of(tmp_path, {"verdict": "all", "map": meaning}, rows) == [("p", ["first", "tie", None], [])]
    each = [
        {"id": "p", "x": "a", "y": "b", "best": "a", "who": "ann"},
        {"id": "q", "x": "a", "y": "b", "best": "b", "who": "ann"},
        {"id": "p", "x": "b", "y": "a", "best": "b", "who": 7},  # told the other way round
    ]
    found = gold_of(tmp_path, {"responses": ["x", "y"], "winner": "best", "rater": "who"}, each)
    assert found == [("p", ["first", "second"], ["ann", "7"]), ("q", ["second"], ["ann"])]


def test_gold_scores_and_slices(tmp_path: Path) -> None:
    rows = [{"id": "p", "ours": 4, "theirs": "3.5", "lang": "en"}]
    said = {
        "recording": "x",
        "data": "rows.jsonl",
        "prompts": {"id": "id"},
        "responses": [{"id": "'a'"}, {"id": "'b'"}],
    }
    part = {"responses": ["'b'"], "score": ["ours", "theirs"], "slices": {"language": "lang", "none": "absent"}}
    (gold,) = read_gold(write(tmp_path, {**said, "gold": part}, rows))
    assert (gold.response_ids, gold.labels, gold.slices) == ([make_id("p", "b")], [4.0, 3.5], {"language": "en"})
    with pytest.raises(ConfigError, match="says nothing of what people prefer"):
        list(read_gold(write(tmp_path, said, rows)))


# -- what is wrong is said in one line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"replys": {}}, r"recording.yaml: replys: unknown key; allowed here: .*replies"),
        ({"prompts": {"id": "id", "txt": "q"}}, r"prompts.txt: unknown key; allowed here: .*text"),
        ({"data": "none.jsonl"}, r"none.jsonl: no such file"),
        ({"data": None}, r"prompts reads no file: give `data` here, or in prompts"),
        ({"prompts": {}}, r"prompts: give `text`, or at least `id`"),
        ({"responses": [{"text": "aa"}]}, r"rows.jsonl:1: responses\[0\].text: null here; columns: q, id, a, b, out"),
        ({"responses": [{"text": "a"}, {"text": "b["}]}, r"responses\[1\].text: 'b\[' is no column and no JMESPath"),
        (
            {"responses": [{"text": "a"}, {"text": "abs(b)"}]},
            r"rows.jsonl:1: .*responses\[1\].text: 'abs\(b\)': .*abs",
        ),
        (
            {"responses": [{"id": "'x'", "text": "a"}, {"id": "'x'", "text": "b"}]},
            r"rows.jsonl:1: responses\[1\].id: 'x' of prompt '1' came with another text before, at .*rows.jsonl:1",
        ),
        (
            {"replies": {"shown": ["'1'", "'3'"], "text": "out"}},
            r"rows.jsonl:1: .*prompt '1' has no response '3'; there: 1, 2",
        ),
        ({"replies": {"shown": ["'1'"], "verdict": "out"}, "parse": None}, r"1 ids, but what is recorded is about 2"),
        ({"replies": {"shown": ["'1'", "'1'"], "text": "out"}}, r"'1' is there twice"),
        ({"replies": {"shown": ["'1'", "'2'"]}}, r"replies.0: give one of text, verdict, .*; got none"),
        ({"replies": {"shown": ["'1'", "'2'"], "text": "out", "score": "x"}}, r"give one of .*; got text, score"),
        (
            {"replies": {"shown": ["'1'", "'2'"], "verdict": "out"}, "parse": None},
            r"rows.jsonl:1: .*replies\[0\].verdict: 'I pick the first' is none of 'first', 'second', 'tie'; give",
        ),
        (
            {"replies": {"shown": ["'1'", "'2'"], "verdict": "out", "map": {"A": "frist"}}, "parse": None},
            r"map.A: .*'frist'",
        ),
        (
            {"replies": {"shown": ["'1'", "'2'"], "text": "out", "swapped": "q"}},
            r"swapped: expected true or false, got 'why",
        ),
        ({"replies": {"shown": ["'1'"], "score": "out"}, "parse": None}, r"score: expected a number, got 'I pick"),
        (
            {"prompts": {"id": "'same'", "text": "q"}},
            r"rows.jsonl:3: prompts.id: 'same' came with another text before",
        ),
        ({"gold": {"winner": "out"}}, r"gold\[0\].winner: 'I pick the first' is none of '1', '2'"),
        ({"gold": {"verdict": "nothing"}}, r"gold\[0\].verdict: no label in any row"),
        (
            {"gold": {"responses": ["'1'", "'9'"], "winner": "out"}},
            r"gold\[0\].responses: prompt '1' has no response '9'",
        ),
        (
            {"parse": {"patterns": {"first": "(", "second": "b"}}},
            r"parse: patterns.first: '\(' is no regular expression",
        ),
        ({"parse": {"patterns": {"first": "(a+)+$", "second": "b"}}}, r"repeats a repetition"),
        (
            {"data": {"path": "rows.jsonl", "where": "${jugde}"}, "params": {"judge": 1}},
            r"unknown parameter \$\{jugde\}; there: judge",
        ),
        ({"data": "${env:NOT_SET_ANYWHERE}/x"}, r"the environment has no variable NOT_SET_ANYWHERE"),
        (
            {"data": {"path": "rows.jsonl", "join": {"x": {"path": "rows.jsonl", "here": "id", "there": "id"}}}},
            r"rows.jsonl:2: data.join.x.there: '1' stands for two rows",
        ),
        (
            {"data": {"path": "rows.jsonl", "join": {"x": {"path": "rows.jsonl", "here": "q", "there": "out"}}}},
            r"rows.jsonl:1: .*data.join.x.here: no row there with 'Why is the sky blue\?'; unmatched: keep or drop",
        ),
        ({"data": {"path": "rows.jsonl", "each": "q"}}, r"rows.jsonl:1: .*data.each: expected a list, got str"),
        (
            {"data": {"path": "rows.jsonl", "let": {"q": "a"}}},
            r"rows.jsonl:1: data: the file has a column 'q' of its own",
        ),
        ({"data": {"path": "rows.jsonl", "rows": "x"}}, r"data.rows: only a .json document"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(write(tmp_path, changed(**parts)))
    assert "\n" not in str(caught.value)


def test_prompts_that_nobody_can_judge_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, {"q": " ", "id": 3, "a": "x", "b": "y", "out": "first", "swap": False}]
    found = load(write(tmp_path, PAIRS, rows))
    assert [(row.reason, row.id[-12:]) for row in found.dropped] == [("empty_prompt", "rows.jsonl:4")]
    assert len(found.prompts) == 2 and len(found.replies) == 3


# -- identity --------------------------------------------------------------------------------------------------------


def test_the_identity_is_that_of_what_is_said_and_of_the_files(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    path, other = write(here, PAIRS), write(there, PAIRS)
    first = load(path).identity
    assert load(other).identity == first, "where it lies makes no difference"
    path.write_text(f"# a comment\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    assert load(path).identity == first
    put(here / "rows.jsonl", [{**row, "swap": not row["swap"]} for row in ROWS])
    assert load(path).identity != first
    write(there, changed(parse={"patterns": {"first": "first", "second": "second"}}))
    assert load(other).identity != first
    assert recordings.files_of(path) == [path, here / "rows.jsonl"]


def test_patterns_in_a_file_of_their_own(tmp_path: Path) -> None:
    said = changed(
        parse={
            "patterns": {"file": "regexes.json", "first": '"j/1"[?@] | [0].A', "second": '"j/1"[?@] | [0].B'},
            "take": "last",
        }
    )
    path = write(tmp_path, said, regexes__json={"j/1": [None, {"A": "fir+st", "B": "second"}]})
    assert verdicts(load(path))["1", "1", "2"] == "A"
    assert tmp_path / "regexes.json" in recordings.files_of(path)
    put(tmp_path / "regexes.json", {"j/1": [None, {"A": "(x*)*", "B": "second"}]})
    with pytest.raises(ConfigError, match=r"regexes.json: .*parse.patterns.first: .* repeats a repetition"):
        load(path)
    put(tmp_path / "regexes.json", {})
    with pytest.raises(ConfigError, match=r"regexes.json: .*parse.patterns.first: .* finds no text there, but None"):
        load(path)


def test_a_reply_is_writable_whatever_it_holds(tmp_path: Path) -> None:
    found = load(write(tmp_path, PAIRS, [{**ROWS[0], "out": "first \ud800"}]))
    assert list(found.replies.values()) == [[Reply(text="first ?", model="judge-7b")]]
