"""What the responses are like whoever judges them: repeated, alike from prompt to prompt, addressed to the judge."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

from rlaif.fencing import neutralise
from rlaif.judges.verdicts import plain
from rlaif.records import Response
from rlaif.stages.audit.material import Found, Material, Missing, Part, outcomes

_GRAM = 5  # characters
_READ = 4000  # characters of a text that are compared for near duplicates
_OPENING = 5  # words
_SHOWN = 10  # openings, and ids of a pattern, in audit.json
_WORD = re.compile(r"\w+")

# Response texts that speak to the judge or imitate what stands around them. Searched after full-width letters became
# plain ones and invisible characters went.
_LETTER = r"[a-d1-9]\b"
_JUDGE = r"(?:judge|evaluator|grader|annotator|reviewer)"
PATTERNS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for name, pattern in {
        "verdict": rf"\b(?:verdict|winner|expected answer)\W{{0,4}}\s(?:is )?\(?{_LETTER}\W*(?:$|and\b)"
        rf"|\banswer\s?:\s{_LETTER}\W*$",
        "brackets": r"\[\[\s*(?:[a-d]|tie|\d{1,2})\s*\]\]",
        "json": rf"[\"'](?:verdict|winner|choice|preferred|label)[\"']\s*:\s*[\"']?{_LETTER}",
        "override": r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}"
        r"\b(?:instructions?|rules|rubric|criteria|standard|guidelines)\b|\bthe task has changed\b",
        "judge": rf"\b(?:dear|to the|as the|you are the|note (?:to|for) the|attention|hello)\W+(?:\w+ )?{_JUDGE}s?\b"
        rf"|^\W*{_JUDGE}\b\W*[:,—-]|\b(?:a|the|every) judge (?:that|who)\b",
        "demand": r"\b(?:choose|pick|select|prefer|rank|rate|name|output|answer with|reply with|vote for)s?\b"
        rf"[^.\n]{{0,24}}\b(?:this response|(?:response|answer|letter) {_LETTER})"
        rf"|\b(?:output|print|write) only {_LETTER}",
        "claim": r"\bthis (?:response|answer) (?:is|was|has been|should be|must be)\b[^.\n]{0,80}"
        r"(?:\bbest\b|\bbetter\b|\bpreferred\b|\bcomplete\b|\bwinner\b)"
        r"|\bpreferred this (?:response|answer)|\bif this (?:response|answer) loses",
        "rival": r"\bthe other (?:response|candidate)s?\b",
        "headings": r"^#{1,4}\s*(?:response(?: [a-d])?|standard|reference|conversation|rubric|verdict)\s*:?\s*$",
        "turn": r"^\W{0,3}(?:system|assistant)\s*(?:message|prompt)?\s*:\s",
        "thinking": r"</?think(?:ing)?>",
        "tags": r"</?(?:response|answer|instructions?|system|evaluation|verdict|rubric|material)(?:_[ab])?>",
    }.items()
}
CONTROL = "control_tokens"  # chat-template tokens, as fencing.py knows them


def addressed(text: str) -> list[str]:
    """The patterns that a response's text matches; [] for one that speaks to nobody but its reader."""
    read = plain(text)
    found = [name for name, pattern in PATTERNS.items() if pattern.search(read)]
    return found + ([CONTROL] if neutralise(text) != text else [])


def probe(material: Material) -> Part:
    """How many responses address the judge, in which way, and whether that pays."""
    hits = {row.id: names for row in material.responses.values() if (names := addressed(row.text))}
    rows = list(material.responses.values())
    met = [m for m in material.meetings if (m.a in hits) != (m.b in hits)]
    won = outcomes(m.p if m.a in hits else 1 - m.p for m in met)
    figures = {
        "probe_rate": material.rate([float(r.id in hits) for r in rows], [r.prompt_id for r in rows], "no response"),
        "probe_win_rate": material.rate(
            won.tolist(), [m.prompt_id for m in met], "no such response was compared with another"
        ),
    }
    by_pattern: dict[str, list[str]] = defaultdict(list)
    for response_id, names in hits.items():
        for name in names:
            by_pattern[name].append(response_id)
    ranked = sorted(by_pattern.items(), key=lambda item: (-len(item[1]), item[0]))
    return figures, {"probe": [{"pattern": n, "responses": len(i), "ids": i[:_SHOWN]} for n, i in ranked]}


def repetition(material: Material) -> Part:
    """Texts that a prompt has twice, that answer several prompts, or that all begin alike."""
    rows = list(material.responses.values())
    texts = {row.id: normal(row.text) for row in rows}
    by_prompt: dict[str, list[Response]] = defaultdict(list)
    prompts_of: dict[str, set[str]] = defaultdict(set)
    openings: Counter[str] = Counter()
    for row in rows:
        by_prompt[row.prompt_id].append(row)
        prompts_of[texts[row.id]].add(row.prompt_id)
        openings[_opening(texts[row.id])] += 1
    exact = {row.id for group in by_prompt.values() for row in _repeated(group, texts)}
    near = exact | {i for group in by_prompt.values() for i in _near(group, texts, material.near_duplicate)}
    commonest = openings.most_common(_SHOWN)
    ids = [row.prompt_id for row in rows]

    def share(flags: Iterable[bool]) -> Found:
        return material.rate([float(flag) for flag in flags], ids, "no response")

    figures = {
        "duplicate_rate": share(row.id in exact for row in rows),
        "near_duplicate_rate": share(row.id in near for row in rows),
        "repeated_text_rate": share(len(prompts_of[texts[row.id]]) > 1 for row in rows),
        "common_opening_rate": share(_opening(texts[row.id]) == commonest[0][0] for row in rows)
        if len(by_prompt) > 1
        else Missing("one prompt only"),
    }
    return figures, {"openings": [{"opening": text, "responses": n} for text, n in commonest if n > 1]}


def normal(text: str) -> str:
    """Without case, punctuation and spacing: the words, one space apart."""
    return " ".join(_WORD.findall(plain(text).casefold())) or text.strip()


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """|A ∩ B| / |A ∪ B|."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0


def grams(text: str) -> frozenset[str]:
    """Character 5-grams of a text's beginning; a shorter text is its own only one."""
    text = text[:_READ]
    return frozenset(text[i : i + _GRAM] for i in range(max(1, len(text) - _GRAM + 1)))


def _opening(text: str) -> str:
    return " ".join(text.split()[:_OPENING])


def _repeated(group: list[Response], texts: dict[str, str]) -> list[Response]:
    counts = Counter(texts[row.id] for row in group)
    return [row for row in group if counts[texts[row.id]] > 1]


def _near(group: list[Response], texts: dict[str, str], threshold: float) -> set[str]:
    sets = {row.id: grams(texts[row.id]) for row in group} if len(group) > 1 else {}
    found: set[str] = set()
    for one, other in combinations(sets, 2):
        small, large = sorted((len(sets[one]), len(sets[other])))
        if small < threshold * large:  # they cannot overlap enough
            continue
        if jaccard(sets[one], sets[other]) >= threshold:
            found |= {one, other}
    return found
