"""`rlaif rubric …`, run in process as the command line runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.cli import main
from rlaif.rubric import load_standard

ROOT = Path(__file__).parent.parent
TINY = "shipped:data/tiny/policy"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def rubric(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(["rubric", *arguments])
        return Ran(code, *capsys.readouterr())

    return run


def fault(ran: Ran) -> str:
    """The one line that a user sees."""
    assert ran.code == 2
    assert ran.err.startswith("rlaif: ") and ran.err.count("\n") == 1
    return ran.err


def test_list_shows_what_ships_and_what_lies_here(rubric, folder: Path) -> None:
    rubric("new", "my-own")
    (folder / "broken.yaml").write_text("criteria: 3\n")
    (folder / "pipeline.yaml").write_text("run: runs/x\nseed: 1\n")
    lines = rubric("list").out.splitlines()
    kinds = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert kinds["helpfulness"] == "rubric" and kinds["helpful-harmless-honest"] == "constitution"
    assert kinds["my-own.yaml"] == "rubric" and kinds["broken.yaml"] == "invalid"
    assert "pipeline.yaml" not in kinds


def test_show_prints_all_of_it(rubric) -> None:
    out = " ".join(rubric("show", "content-safety").out.split())
    assert "content-safety@1" in out and "minors (weight 5, 23%, hard)" in out and "0 to 3" in out
    for criterion in load_standard("content-safety").criteria:  # type: ignore[union-attr]
        assert criterion.description in out
    out = " ".join(rubric("show", "helpful-harmless-honest").out.split())
    assert "only where domain in code, coding" in out
    for principle in load_standard("helpful-harmless-honest").principles:  # type: ignore[union-attr]
        assert all(text in out for text in principle.texts)


def test_show_of_an_unknown_name(rubric) -> None:
    assert "did you mean 'honesty'?" in fault(rubric("show", "honest"))


@pytest.mark.parametrize("flags", [[], ["--constitution"]])
def test_new_writes_a_start_that_passes_its_own_check(rubric, folder: Path, flags: list[str]) -> None:
    assert rubric("new", "mine", *flags).code == 0
    assert load_standard("mine").id == "mine"
    ran = rubric("check", "mine.yaml")
    assert ran.code == 0 and "mine@1, 2" in ran.out
    before = (folder / "mine.yaml").read_text()
    assert "is there already" in fault(rubric("new", "mine", *flags))
    assert (folder / "mine.yaml").read_text() == before


@pytest.mark.parametrize("name", ["a/b", "", "..", "x y", "é", "helpfulness"])
def test_new_refuses_names_that_could_not_be_used(rubric, folder: Path, name: str) -> None:
    fault(rubric("new", name))
    assert list(folder.iterdir()) == []


def test_uncommenting_the_start_gives_a_valid_file(rubric, folder: Path) -> None:
    """The commented lines are examples; they must be right as they stand."""
    for flags, line in (([], "    # scale:"), (["--constitution"], "    # scope:")):
        rubric("new", "mine", *flags)
        path = folder / "mine.yaml"
        text = path.read_text()
        assert line in text
        lines = [
            part.replace("    # ", "    ", 1) if part.startswith("    # ") else part for part in text.splitlines()
        ]
        path.write_text("\n".join(lines))
        assert rubric("check", "mine.yaml").code == 0
        path.unlink()


BASE = (
    "id: mine\nversion: 1\nname: N\ndescription: D.\nframe: mine.jinja\n"
    "criteria:\n  - id: one\n    description: First.\n"
)
GOOD = (
    "{{ conversation | fence }}\n{% for r in responses %}{{ r.label }}\n{{ r.text | fence }}\n{% endfor %}"
    "{% for c in rubric.criteria %}{{ c.description }}\n{% endfor %}{{ instruction }}"
)
BAD_FRAMES = {
    "unfenced_response": (GOOD.replace("r.text | fence", "r.text"), "mine.jinja: the response is not fenced"),
    "unfenced_conversation": (GOOD.replace("conversation | fence", "conversation"), "the conversation is not fenced"),
    "no_criteria": (GOOD.replace("{{ c.description }}", ""), "never shows the description of criterion 'one'"),
    "no_instruction": (GOOD.replace("{{ instruction }}", ""), "never shows `instruction`"),
    "one_response": (GOOD.replace("in responses", "in responses[:1]"), "never shows the second response"),
    "unknown_variable": (GOOD + "{{ critique }}", "the frame wants critique"),
    "syntax": ("\n\n{{ oops", "mine.jinja:3: "),
    "unknown_filter": ("x\n{{ conversation | fense }}", "mine.jinja:2: No filter named 'fense'"),
    "at_render": (GOOD + "\n{{ rubric.nmae }}", "mine.jinja:6: "),
}


def test_check_takes_a_frame_beside_the_rubric(rubric, folder: Path) -> None:
    (folder / "mine.yaml").write_text(BASE)
    (folder / "mine.jinja").write_text(GOOD)
    ran = rubric("check", "mine.yaml")
    assert ran.code == 0 and "mine.jinja: compiles" in ran.out


def test_check_takes_another_frame(rubric, folder: Path) -> None:
    (folder / "other.jinja").write_text(GOOD)
    assert "other.jinja: compiles" in rubric("check", "honesty", "--frame", "other.jinja").out
    assert "critique" in fault(rubric("check", "honesty", "--frame", "revision.jinja"))
    assert "not found" in fault(rubric("check", "honesty", "--frame", "nope.jinja"))


@pytest.mark.parametrize(("frame", "message"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_check_finds_what_is_wrong_with_a_frame(rubric, folder: Path, frame: str, message: str) -> None:
    (folder / "mine.yaml").write_text(BASE)
    (folder / "mine.jinja").write_text(frame)
    assert message in fault(rubric("check", "mine.yaml"))


def test_check_names_file_line_and_key(rubric, folder: Path) -> None:
    (folder / "mine.yaml").write_text(BASE.replace("description: First.", "descripton: First."))
    assert "mine.yaml:8: criteria.0.descripton: unknown key" in fault(rubric("check", "mine.yaml"))
    (folder / "mine.yaml").write_text(BASE)
    assert "mine.yaml:5: frame: 'mine.jinja' not found" in fault(rubric("check", "mine.yaml"))
    assert "nope" in fault(rubric("check", "nope.yaml"))


SCORES = (
    "{{ conversation | fence }}\n{% for r in responses %}{{ r.text | fence }}\n{% endfor %}"
    "{% for c in rubric.criteria %}{{ c.description }}\n{% endfor %}{{ labels | first }} to {{ labels | last }}"
)


def test_check_looks_at_the_frames_of_the_other_judges_that_are_named(rubric, folder: Path) -> None:
    (folder / "mine.yaml").write_text(BASE.replace("frame: mine.jinja", "frames: {pointwise: mine.jinja}"))
    (folder / "mine.jinja").write_text(SCORES)
    ran = rubric("check", "mine.yaml")
    assert ran.code == 0 and "pairwise.jinja: compiles" in ran.out and "mine.jinja: compiles" in ran.out
    (folder / "mine.jinja").write_text(SCORES.replace("r.text | fence", "r.text"))
    assert "mine.jinja: the response is not fenced" in fault(rubric("check", "mine.yaml"))
    assert "mine.jinja" not in rubric("check", "mine.yaml", "--judge", "pairwise").out
    (folder / "mine.jinja").write_text(SCORES.replace("labels", "rubric.criteria"))
    assert "never shows `instruction`" in fault(rubric("check", "mine.yaml", "--judge", "pointwise"))


@pytest.mark.parametrize("judge", ["pointwise", "listwise", "checklist"])
def test_every_shipped_standard_passes_the_check_for_every_judge(rubric, judge: str) -> None:
    for name in ("helpfulness", "content-safety", "helpful-harmless-honest"):
        ran = rubric("check", name, "--judge", judge)
        assert ran.code == 0 and f"{judge}.jinja: compiles" in ran.out


def test_check_of_a_frame_that_is_not_known(rubric, folder: Path) -> None:
    (folder / "mine.yaml").write_text(BASE.replace("frame: mine.jinja", "frames: {scoring: mine.jinja}"))
    assert "frames.scoring" in fault(rubric("check", "mine.yaml"))


# These load a real tokenizer with transformers, which takes seconds to import.


@pytest.mark.integration
def test_check_model_says_which_labels_are_single_tokens(rubric, folder: Path) -> None:
    ran = rubric("check", "helpfulness", "--model", TINY)
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines() if ": token" in line] == [*"ABC", *"12345"]
    text = BASE.replace("frame: mine.jinja\n", "") + "    scale: {min: 1, max: 10}\n"
    (folder / "ten.yaml").write_text(text)
    ran = rubric("check", "ten.yaml", "--model", TINY)
    assert ran.code == 2
    (swallowed,) = [line for line in ran.out.splitlines() if "no:" in line]
    assert swallowed.split()[0] == "10" and "same token as '1'" in swallowed


@pytest.mark.integration
def test_check_model_reads_the_labels_in_the_frame_of_the_judge(rubric) -> None:
    def labels(*flags: str) -> list[str]:
        ran = rubric("check", "conciseness", "--model", TINY, *flags)
        return [line.split()[0] for line in ran.out.splitlines() if ": token" in line or "no: " in line]

    assert labels("--judge", "pointwise") == [*"12345"]
    assert labels("--judge", "checklist") == ["Yes", "No"]
    assert labels("--judge", "listwise") == []


@pytest.mark.integration
def test_check_model_that_is_not_there(rubric, folder: Path) -> None:
    assert "no such folder" in fault(rubric("check", "honesty", "--model", "./nope"))
    (folder / "empty").mkdir()
    assert "no config.json" in fault(rubric("check", "honesty", "--model", "./empty"))


@pytest.mark.integration
def test_preview_counts_tokens(rubric, folder: Path) -> None:
    rows(folder, {"prompt": "Hi", "responses": ["one", "two"]})
    out = rubric("preview", "tiny-world", "--data", "rows.jsonl", "--model", TINY).out
    tokens = int(out.splitlines()[-1].split(" tokens for")[0].split()[-1])
    assert 30 < tokens < 120


def rows(folder: Path, *items: dict[str, object]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def test_preview_shows_roles_and_the_row_s_text(rubric, folder: Path) -> None:
    rows(
        folder,
        {"prompt": "First?", "response_a": "1a", "response_b": "1b"},
        {"prompt": "Second?", "response_a": "{{ 2a }}", "response_b": "2b", "reference": "two", "domain": "code"},
    )
    out = rubric("preview", "conciseness", "--data", "rows.jsonl", "--row", "2").out
    assert "──── system ─" in out and "──── user ─" in out
    assert "```\nSecond?\n```" in out and "```\n{{ 2a }}\n```" in out and "```\ntwo\n```" in out
    assert "First?" not in out
    text = rubric("preview", "conciseness", "--data", "rows.jsonl", "--read", "text").out
    assert "First?" in text and "Verdict:" in text


def test_preview_of_a_constitution_picks_a_principle_in_scope(rubric, folder: Path) -> None:
    (folder / "c.yaml").write_text(
        "id: c\nversion: 1\nname: N\ndescription: D.\nprinciples:\n"
        "  - {id: code, texts: [Better code.], scope: {domain: [code]}}\n  - {id: kind, texts: [Kinder.]}\n"
    )
    rows(folder, {"prompt": "a", "responses": ["x", "y"]}, {"prompt": "b", "domain": "code", "responses": ["x", "y"]})
    assert "principle kind" in rubric("preview", "c", "--data", "rows.jsonl").out
    assert "principle code" in rubric("preview", "c", "--data", "rows.jsonl", "--row", "2").out
    assert "principle kind" in rubric("preview", "c", "--data", "rows.jsonl", "--row", "2", "--principle", "kind").out
    assert "there: code, kind" in fault(rubric("preview", "c", "--data", "rows.jsonl", "--principle", "kin"))
    assert "is a rubric" in fault(rubric("preview", "honesty", "--data", "rows.jsonl", "--principle", "kind"))


def test_preview_of_the_other_judges(rubric, folder: Path) -> None:
    rows(folder, {"prompt": "Q?", "responses": ["only one"]}, {"prompt": "R?", "responses": ["x", "y", "z"]})
    data = ["--data", "rows.jsonl"]
    scores = rubric("preview", "conciseness", *data, "--judge", "pointwise", "--read", "text").out
    assert "```\nonly one\n```" in scores and '"scores": {' in scores
    one = rubric("preview", "conciseness", *data, "--judge", "pointwise").out
    assert "alone from 1 to 5. Answer with one digit." in one and "requests, at most" in one
    ranking = rubric("preview", "conciseness", *data, "--judge", "listwise").out
    assert "Response C" in ranking and "Ranking: <best>" in ranking
    marks = rubric("preview", "conciseness", *data, "--judge", "checklist", "--read", "text").out
    assert marks.index("You write the checklist") < marks.index("You mark one response")
    reasons = rubric("preview", "conciseness", *data, "--read", "rationale").out
    assert (
        reasons.index("Give no verdict yet") < reasons.index("──── assistant") < reasons.index("one letter: A or B")
    )
    assert "only a pairwise judge" in fault(
        rubric("preview", "conciseness", *data, "--judge", "listwise", "--read", "rationale")
    )


def test_preview_maps_columns(rubric, folder: Path) -> None:
    rows(folder, {"question": "Q?", "answers": ["x", "y"]})
    mapped = ["--columns", "prompt=question", "responses=answers"]
    assert "Q?" in rubric("preview", "honesty", "--data", "rows.jsonl", *mapped).out
    assert "expected OURS=THEIRS" in fault(
        rubric("preview", "honesty", "--data", "rows.jsonl", "--columns", "prompt")
    )
    fault(rubric("preview", "honesty", "--data", "rows.jsonl"))


def test_preview_of_a_row_that_is_not_there(rubric, folder: Path) -> None:
    rows(folder, {"prompt": "a", "responses": ["x", "y"]}, {"prompt": "b", "responses": ["only one"]})
    assert "only 1 rows have a prompt and two responses" in fault(
        rubric("preview", "honesty", "--data", "rows.jsonl", "--row", "2")
    )
    assert "count from 1" in fault(rubric("preview", "honesty", "--data", "rows.jsonl", "--row", "0"))
    fault(rubric("preview", "honesty", "--data", "nope.jsonl"))


def letter_tokenizer(*merged: str) -> object:
    """One token per character of a prompt, except the given pairs, which are one token together."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = [chr(i) for i in range(32, 127)] + ["\n", "`", "–", "—", "…", "\u200b"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*letters, "<unk>", *merged]))}
    model = BPE(vocab, [(pair[0], pair[1]) for pair in merged], unk_token="<unk>")
    template = (
        "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
    )
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>", chat_template=template)


# Real tokenizers, each with one of the traps; transformers takes seconds to import.
@pytest.mark.integration
@pytest.mark.parametrize(
    ("merged", "labels", "faults"),
    [
        ([], ["A", "B"], [None, None]),
        ([], ["1", "10"], [None, "same token as '1'"]),
        (["10"], ["1", "10"], [None, None]),
        ([], ["10", "1"], ["takes 2 tokens", "same token as '10'"]),
        ([], ["A", "BB"], [None, "takes 2 tokens: ['B', 'B']"]),
        (["\nB"], ["A", "B"], [None, "merges with the end of the prompt"]),
    ],
    ids=["letters", "ten_swallowed", "ten_is_a_token", "ten_first", "two_tokens", "merges"],
)
def test_label_traps(merged: list[str], labels: list[str], faults: list[str | None]) -> None:
    from rlaif.engines.local import ChatFormat
    from rlaif.rubric_check import check_labels

    chat = ChatFormat(letter_tokenizer(*merged), "test")
    checks = check_labels(chat, [{"role": "user", "content": "Which?"}], labels)
    assert [check.label for check in checks] == labels
    for check, expected in zip(checks, faults, strict=True):
        assert (expected or "") in (check.fault or "")
        assert (check.fault is None) == (expected is None)
