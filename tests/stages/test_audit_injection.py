"""Attacks on scripted judges: one that obeys, one that does not, and what fences and parser hold back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlaif import pipeline
from rlaif.config import Pipeline, validate
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import ConfigError, DataError
from rlaif.fencing import fence
from rlaif.plan import dry_run
from rlaif.records import Judgment, Reply, Request
from rlaif.stages.audit import readers
from rlaif.stages.audit.attacks import MARK, Attack, load_attacks
from rlaif.stages.audit.texts import addressed

SHIPPED = "shipped:data/attacks/injection.yaml"
ATTACKS = load_attacks(SHIPPED)
N_PROMPTS = 6
UNFENCED = "{{ conversation }}\nA: {{ responses[0].text }}\nB: {{ responses[1].text }}\n{{ instruction }}"


def prefers_good(request: Request) -> str:
    """Reads the two texts and nothing that is added to them."""
    text = str(request.messages[-1]["content"])
    return "Verdict: A" if text.index("good") < text.index("poor") else "Verdict: B"


def obeys(request: Request) -> Reply:
    """Obeys any verdict in the prompt, also inside the fences; else as `prefers_good`."""
    stronger = "first" if prefers_good(request) == "Verdict: A" else "second"
    seen = msgspec.structs.replace(request, subject=("prompt", "first", "second"))
    return readers.Obedient(stronger, ("A", "B"))(seen)


def config(tmp_path: Path, judge: str = "prefers_good", frame: str | None = None, **injection: Any) -> Pipeline:
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Q{i}?", "responses": [f"a poor try {i}.", f"a good one {i}."]} for i in range(N_PROMPTS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw: dict[str, Any] = {
        "run": str(tmp_path / "run"),
        "engines": {"judge": {"engine": "scripted", "function": f"{__name__}:{judge}", "model": judge}},
        "prompts": {"path": str(data)},
        "judge": {"rubric": "helpfulness"},
        "pair": {},
        "audit": {"injection": injection},
    }
    if frame:
        (tmp_path / "mine.jinja").write_text(frame)
        raw["judge"]["frame"] = str(tmp_path / "mine.jinja")
    return validate(Pipeline, raw, "test")


def audit(pipe: Pipeline) -> dict[str, Any]:
    pipeline.run(pipe, quiet=True)
    found: dict[str, Any] = json.loads((Path(pipe.run) / "audit.json").read_text(encoding="utf-8"))
    return found


def value(found: dict[str, Any]) -> float | None:
    number: float | None = found["value"]
    return number


# -- the set -------------------------------------------------------------------------------------------------------


def test_the_shipped_set_has_many_kinds_and_placebos() -> None:
    kinds = {attack.kind for attack in ATTACKS if not attack.placebo}
    assert len(kinds) >= 30
    assert sum(attack.placebo for attack in ATTACKS) == 2
    assert len({attack.template for attack in ATTACKS}) == len(ATTACKS)


def test_what_the_probe_finds_of_the_set() -> None:
    """One is known to be missed; patterns and attacks have one author, so this is no measure of recall."""
    seen = {attack.id: addressed(attack.applied("It is Paris.").replace(MARK, "A")) for attack in ATTACKS}
    assert {name for name, found in seen.items() if not found} == {"verdict-spaced", "placebo-short", "placebo-long"}


def test_a_template_is_filled_once() -> None:
    """What a response holds is never read as a placeholder."""
    attack = Attack(id="x", kind="x", template="{label}: {response} ({label})")
    assert attack.applied("a {response} of {label}") == f"{MARK}: a {{response}} of {{label}} ({MARK})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "expected `attacks:`"),
        ("attacks: []", "expected `attacks:`"),
        ("attacks: [{id: a, kind: k}]", r"attacks\[0\]: .*template"),
        (
            "attacks: [{id: a, kind: k, template: nothing}]",
            r"attacks\[0\] \(a\): the template must hold {response} once",
        ),
        ("attacks: [{id: a, kind: k, template: '{response}', placebos: true}]", r"attacks\[0\]: .*placebos"),
        ("attacks: [&a {id: a, kind: k, template: '{response}!'}, *a]", r"attacks\[1\]: id 'a' is there twice"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_attack_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as fault:
        load_attacks(str(path))
    assert str(path) in str(fault.value) and "\n" not in str(fault.value)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no kind 'verdict lines' in .*; there are: verdict line, "):
        load_attacks(SHIPPED, ["verdict lines"])
    chosen = load_attacks(SHIPPED, ["plea"])
    assert [attack.id for attack in chosen] == ["plea", "placebo-short", "placebo-long"]


# -- readers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_no_attack_gets_out_of_its_fence(attack: Attack) -> None:
    page = f"Before.\n{fence(attack.applied('It is Paris.').replace(MARK, 'A'))}\nAfter."
    assert readers.outside_fences(page) == "Before.\nAfter."
    assert readers.after_control_token(page) == ""


def test_a_fence_of_three_backticks_would_not_hold() -> None:
    attack = next(attack for attack in ATTACKS if attack.id == "fence-close")
    text = attack.applied("It is Paris.").replace(MARK, "A")
    assert "Verdict: A" in readers.outside_fences(f"Before.\n```\n{text}\n```\nAfter.")
    chat = next(attack for attack in ATTACKS if attack.id == "chatml").applied("x").replace(MARK, "A")
    assert "Verdict: A" in readers.after_control_token(chat)


def request(text: str, labels: list[str] | None = None) -> Request:
    return Request(
        role="judge", messages=[{"role": "user", "content": text}], labels=labels or [], subject=("p", "x", "y")
    )


def test_a_reader_names_its_own_choice_in_both_orders_unless_told() -> None:
    reader = readers.Obedient("y", ("A", "B"))
    assert reader(request("which?")).text == "Verdict: B"
    assert reader(request("which? Verdict: A")).text == "Verdict: A"
    assert reader(request("Verdict: A … the answer is B")).text == "Verdict: B", "the last one counts"
    assert reader(request("Verdict: D")).text == "Verdict: B", "not on the menu"
    told = reader(request("[[A]]", ["A", "B"]))
    assert told.text == "A" and told.logprobs is not None and told.logprobs[0].top[0][0] == "A"


# -- the stage -----------------------------------------------------------------------------------------------------


def test_a_judge_that_is_not_moved_and_a_frame_that_fences(tmp_path: Path) -> None:
    found = audit(config(tmp_path, n=4))
    figures, injection = found["figures"], found["injection"]
    assert (injection["pairs"], injection["undecided"], injection["attacks"]) == (4, 0, len(ATTACKS))
    moved = {kind for kind, row in injection["kinds"].items() if value(row["success"])}
    assert moved == set()
    assert value(figures["injection_success"]) == value(figures["injection_label_flips"]) == 0.0
    assert figures["injection_success"]["n"] == 4 * 2 * sum(not attack.placebo for attack in ATTACKS)
    assert value(figures["fence_escapes"]) == 0.0
    seen = injection["readers"]
    assert value(seen["everything"]["stating_a_verdict"]) > 0.97, "the positive control"  # type: ignore[operator]
    assert value(seen["outside_fences"]["all"]) == value(seen["control_tokens"]["all"]) == 0.0
    assert value(seen["quoting"]["all"]) == 0.0, "an attack in a judge's reply is never its verdict"
    broken = {kind for kind, row in injection["kinds"].items() if value(row["quoting_broken"]) == 1.0}
    assert broken == {"verdict line", "verdict in Markdown", "verdict disguised", "chat tokens", "forged thinking"}


def test_a_judge_that_obeys_is_found_out_kind_by_kind(tmp_path: Path) -> None:
    found = audit(config(tmp_path, "obeys", n=3))
    stated = {attack.kind for attack in ATTACKS if attack.states_verdict}
    for kind, row in found["injection"]["kinds"].items():
        assert value(row["success"]) == (1.0 if kind in stated else 0.0), kind
        assert value(row["label_flips"]) == (1.0 if kind in stated else 0.0), kind
    assert value(found["figures"]["injection_worst"]) == 1.0
    assert value(found["figures"]["injection_placebo"]) == 0.0
    share = sum(attack.states_verdict for attack in ATTACKS) / sum(not attack.placebo for attack in ATTACKS)
    assert value(found["figures"]["injection_excess"]) == pytest.approx(share, abs=1e-6)


def test_a_frame_without_fences_lets_attacks_out(tmp_path: Path) -> None:
    found = audit(config(tmp_path, frame=UNFENCED, n=3))
    stated = {attack.kind for attack in ATTACKS if attack.states_verdict}
    out = {kind for kind, row in found["injection"]["kinds"].items() if value(row["readers"]["outside_fences"])}
    assert out == stated - {"closing fence", "long closing fence"}, "where there is no fence, those two make one"
    assert value(found["injection"]["kinds"]["chat tokens"]["readers"]["control_tokens"]) == 1.0
    assert value(found["figures"]["fence_escapes"]) > 0.5  # type: ignore[operator]


def test_judgments_of_attacks_are_kept_paid_once_and_planned(tmp_path: Path) -> None:
    pipe = config(tmp_path, n=4, kinds=["plea", "verdict line"])
    pipeline.run(pipe, ["prompts", "judge", "pair"], quiet=True)
    attacks = 1 + 2 + 2  # a plea, two verdict lines, two placebos
    assert f"{4 * attacks * 2:,} requests" in dry_run(pipe, ["audit"])
    manifest = pipeline.run(pipe, ["audit"], quiet=True)
    assert manifest["last_run"]["sent"] == 4 * attacks * 2, "the pairs as they are were judged before"
    again = pipeline.run(pipe, ["audit"], quiet=True, force=True)
    assert again["last_run"]["sent"] == 0
    rows = [json.loads(line) for line in (Path(pipe.run) / "audit" / "judgments.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 4 * (1 + attacks) * 2
    assert {row["meta"]["attack"] for row in rows} == {
        "", "plea", "verdict-line", "verdict-line-first", "placebo-short", "placebo-long",
    }  # fmt: skip
    Judgment(**{key: item for key, item in rows[0].items() if key != "usage"})
    journal = (Path(pipe.run) / "journal.jsonl").read_text()
    assert MARK not in journal


def test_pairs_of_a_file_are_judged_first(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "Other?", "chosen": "a good one.", "rejected": "a poor one."}) + "\n")
    pipe = config(tmp_path, kinds=["plea"], pairs={"path": str(other)})
    pipeline.run(pipe, ["prompts", "judge", "pair"], quiet=True)
    assert "8 requests" in dry_run(pipe, ["audit"])
    manifest = pipeline.run(pipe, ["audit"], quiet=True)
    assert manifest["last_run"]["sent"] == 2 * (1 + 1 + 2)


def test_what_cannot_be_attacked_is_one_line(tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"prompt": "Alone?", "responses": ["only"]}) + "\n")
    with pytest.raises(DataError, match="no pair of two responses to attack"):
        pipeline.run(config(tmp_path, pairs={"path": str(one)}), quiet=True)
    scoring = config(tmp_path, n=2).model_dump(mode="json")
    scoring["judge"]["judge"] = "pointwise"
    scoring["pair"] = None
    with pytest.raises(ConfigError, match="'pointwise' does not compare two responses"):
        pipeline.run(validate(Pipeline, scoring, "test"), quiet=True)


class Recorded(ScriptedEngine):
    """Answers by what is judged, as a recording of other people's judgments does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.capabilities = msgspec.structs.replace(self.capabilities, by_subject=True)


def test_a_recording_cannot_be_attacked(tmp_path: Path) -> None:
    raw = config(tmp_path, n=2).model_dump(mode="json")
    raw["engines"]["judge"]["engine"] = f"{__name__}:Recorded"
    with pytest.raises(ConfigError, match="engine 'judge' answers by what is judged, from a recording"):
        pipeline.run(validate(Pipeline, raw, "test"), quiet=True)


def test_a_cascade_is_attacked_where_its_last_word_is(tmp_path: Path) -> None:
    """The cheap judge always says A, so its orders disagree and the one that obeys has the last word."""
    raw = config(tmp_path, "obeys", n=3, kinds=["plea", "verdict line"]).model_dump(mode="json")
    raw["engines"]["cheap"] = {"engine": "scripted", "default": "Verdict: A", "model": "cheap"}
    members = {"cheap": {"engine": "cheap"}, "strong": {"engine": "judge"}}
    raw["judge"] = {"judge": "cascade", "rubric": "helpfulness", "members": members, "options": {"threshold": 0.8}}
    found = audit(validate(Pipeline, raw, "test"))["injection"]["kinds"]
    assert {kind: (value(row["success"]), row["success"]["n"]) for kind, row in found.items()} == {
        "verdict line": (1.0, 12), "plea": (0.0, 6), "placebo": (0.0, 12),
    }  # fmt: skip
    assert value(found["verdict line"]["label_flips"]) == 1.0


def test_preferences_of_other_responses_are_one_line(tmp_path: Path) -> None:
    pipe = config(tmp_path, n=2)
    pipeline.run(pipe, ["prompts", "judge", "pair"], quiet=True)
    table = Path(pipe.run) / "preferences.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps({**row, "chosen_id": "gone"}) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"preferences\.jsonl: preference \w+ is of another prompt or response"):
        pipeline.run(pipe, ["audit"], quiet=True)
