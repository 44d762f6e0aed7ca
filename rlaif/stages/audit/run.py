"""The stage: audit.json from the tables, an attack on the judge where the config asks for one, and the gates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlaif.config import AuditSection
from rlaif.errors import GateFailed
from rlaif.metrics import Estimate
from rlaif.stages.audit import bias, gates, injection, texts, verdicts
from rlaif.stages.audit.families import families_of
from rlaif.stages.audit.material import Found, Material, Missing, load
from rlaif.stages.audit.names import FIGURES
from rlaif.stages.base import Context
from rlaif.store import write_whole

VERSION = 1
MAX_SLICES = 40  # values of a column, the most frequent ones
_DIGITS = 6
_PARTS = (
    bias.position, bias.length, bias.family, texts.repetition, texts.probe,
    verdicts.failures, verdicts.ties, verdicts.mass, verdicts.agreement,
)  # fmt: skip


def run(context: Context) -> dict[str, Any]:
    """Writes audit.json (and audit/judgments.jsonl for an attack). Returns counts.

    Errors: GateFailed once everything is written; StoreError, DataError for tables that are missing or wrong.
    """
    config = context.config
    section = config.audit or AuditSection()
    gates.check_names(section.gates)
    material = load(context.folder, families_of(config), section.near_duplicate, config.seed)
    figures, detail = measure(material)
    if section.injection is not None:
        more, attacked = injection.run(context, section.injection)
        figures, detail = figures | more, detail | attacked
    rows = gates.judged(section.gates, figures)
    whole = {
        "version": VERSION,
        "seed": config.seed,
        "counts": _counts(material),
        "figures": figures,
        "gates": rows,
        "slices": {name: _slices(material) for name in section.slices},
        **detail,
    }
    body = json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(context.folder.path / "audit.json", body.encode("utf-8", "replace"))
    counts = {
        "judgments": len(material.judgments),
        "figures": sum(isinstance(found, Estimate) for found in figures.values()),
        "gates": len(rows),
        "gates_failed": sum(not row["passed"] for row in rows),
    }
    failed = gates.failure(rows)
    if failed:
        raise GateFailed(f"{failed}; see {context.folder.path / 'audit.json'}", counts)
    return counts


def measure(material: Material) -> tuple[dict[str, Found], dict[str, Any]]:
    """Every figure that the tables give, in the order of `FIGURES`, and the details beside them."""
    figures: dict[str, Found] = {}
    detail: dict[str, Any] = {}
    for part in _PARTS:
        found, more = part(material)
        figures |= found
        detail |= more
    return {name: figures[name] for name in FIGURES if name in figures}, detail


def _counts(material: Material) -> dict[str, int]:
    return {
        "prompts": len(material.domains),
        "responses": len(material.responses),
        "judgments": len(material.judgments),
        **material.kinds,
    }


def _slices(material: Material) -> dict[str, Any]:
    """Domain → n and figures."""
    sizes: dict[str, int] = {}
    for judgment in material.judgments:
        domain = material.domains.get(judgment.prompt_id, "")
        sizes[domain] = sizes.get(domain, 0) + 1
    largest = sorted(sizes, key=lambda domain: (-sizes[domain], domain))[:MAX_SLICES]
    return {
        domain: {"judgments": sizes[domain], "figures": measure(material.of_domain(domain))[0]}
        for domain in sorted(largest)
    }


def plain(value: Any) -> Any:
    """Estimates as objects, a reason for none as {"value": null, "reason"}; numbers rounded."""
    if isinstance(value, Estimate):
        return {key: round(x, _DIGITS) if isinstance(x, float) else x for key, x in value.as_dict().items()}
    if isinstance(value, Missing):
        return {"value": None, "reason": value.reason}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
