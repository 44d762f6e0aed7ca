"""What the judgments say of themselves: failures, ties, label mass, and how the standards agree."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.metrics import Estimate
from rlaif.records import STATUSES, TIE
from rlaif.stages.audit.material import Found, Material, Missing, Part

_MAX_MATRIX = 24  # standards in the matrix; more do not fit on a page
_UNREADABLE = ("unparsed", "truncated", "refused")  # a reply came, and no verdict could be read from it


def failures(material: Material) -> Part:
    """Judgments without a verdict, all of them and by status."""
    ids = [row.prompt_id for row in material.judgments]

    def share(statuses: tuple[str, ...]) -> Found:
        return material.rate([float(row.status in statuses) for row in material.judgments], ids, "no judgment")

    failed = tuple(status for status in STATUSES if status != "ok")
    figures = {"failures": share(failed), "parse_failures": share(_UNREADABLE)}
    return figures | {status: share((status,)) for status in failed}, {}


def ties(material: Material) -> Part:
    """How often the judge names nobody."""
    if material.shown:
        asked = [row for row in material.judgments if row.kind == "pairwise" and row.status == "ok"]
        asked = [row for row in asked if not row.meta.get("identical")]
        values = [float(row.verdict == TIE or (row.verdict is None and p == 0.5))
                  for row, p in zip(asked, (shown.p for shown in material.shown), strict=True)]  # fmt: skip
        ids = [row.prompt_id for row in asked]
    else:
        values = [float(row.p == 0.5) for row in material.meetings]
        ids = [row.prompt_id for row in material.meetings]
    return {"tie_rate": material.rate(values, ids, "no usable judgment of two responses")}, {}


def mass(material: Material) -> Part:
    """The probability that the verdict labels had together, before they were made to sum to 1."""
    rows = [row for row in material.judgments if row.label_mass is not None]
    values, ids = [float(row.label_mass or 0.0) for row in rows], [row.prompt_id for row in rows]
    why = "no judgment was read from log-probabilities"
    low = material.bootstrapped(lambda x: float(np.quantile(x, 0.05)), [np.asarray(values)], ids, why)
    counts = np.histogram(np.clip(values, 0, 1), bins=20, range=(0, 1))[0].tolist() if values else None
    return {"label_mass": material.rate(values, ids, why), "label_mass_p05": low}, {"label_mass_counts": counts}


def agreement(material: Material) -> Part:
    """Pearson's r between every two standards, over the pairs that both judged (same judge, orders averaged)."""
    columns: dict[str, dict[tuple[Any, ...], float]] = defaultdict(dict)
    for row in material.meetings:
        columns[row.standard][(row.judge, row.member, row.prompt_id, row.a, row.b)] = row.p
    names = sorted(columns)[:_MAX_MATRIX]
    matrix: dict[str, dict[str, Found]] = {one: {} for one in names}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            matrix[one][other] = matrix[other][one] = _correlation(columns[one], columns[other])
    known = [(e, one, other) for one in matrix for other, e in matrix[one].items() if isinstance(e, Estimate)]
    none = Missing("no two standards judged the same pairs")
    lowest: Found = min(known, key=lambda item: item[0].value)[0] if known else none
    return {"principle_correlation_min": lowest}, {"correlations": matrix}


def _correlation(one: Mapping[tuple[Any, ...], float], other: Mapping[tuple[Any, ...], float]) -> Found:
    """With Fisher's interval, which is over prompts and not over pairs: those of one prompt are not independent."""
    shared = [key for key in one if key in other]
    table = metrics.correlations({"one": [one[k] for k in shared], "other": [other[k] for k in shared]})
    r = table["one"]["other"]
    if r is None:
        return Missing("fewer than 3 shared pairs, or one standard that never varies")
    n_prompts = len({key[2] for key in shared})
    if n_prompts < 4 or abs(r) >= 1:
        return Estimate(r, None, None, len(shared))
    half = 1.959964 / math.sqrt(n_prompts - 3)
    return Estimate(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), len(shared))
