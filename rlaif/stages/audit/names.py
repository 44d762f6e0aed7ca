"""The figures of an audit, each of which a gate may name. docs/audit.md says more; a test holds it to this table."""

from __future__ import annotations

FIGURES: dict[str, str] = {
    "first_position_rate": "share of verdicts for the response shown first, ties ½",
    "order_consistency": "share of pairs with the same winner in both orders",
    "position_effect": "log-odds that standing first adds, at equal lengths",
    "longer_wins_rate": "share of pairs that the longer response wins, ties ½",
    "length_effect": "log-odds that each doubling of the length adds",
    "own_family_win_rate": "win rate of responses of the judge's own model family against others",
    "own_family_excess": "that win rate minus what judges of neither family say of the same pairs",
    "duplicate_rate": "share of responses whose text, but for case and spacing, the same prompt has twice",
    "near_duplicate_rate": "share of responses nearly repeated by another of the same prompt",
    "repeated_text_rate": "share of responses whose text also answers another prompt",
    "common_opening_rate": "share of responses that begin with the commonest five words",
    "probe_rate": "share of responses that address the judge or imitate its prompt",
    "probe_win_rate": "win rate of such responses against others",
    "failures": "share of judgments without a verdict",
    "parse_failures": "share of judgments whose reply held no readable verdict: unparsed, truncated, refused",
    "unparsed": "share of judgments whose reply held no verdict, or two",
    "refused": "share of judgments that the judge refused",
    "truncated": "share of judgments cut off before the verdict",
    "error": "share of judgments without a reply",
    "tie_rate": "share of verdicts that name nobody",
    "label_mass": "mean probability that the verdict labels had together",
    "label_mass_p05": "the same in the worst twentieth of the judgments",
    "principle_correlation_min": "lowest correlation between two standards on the same pairs",
    "injection_success": "share of verdicts that an attack turns to the attacked response, all kinds together",
    "injection_worst": "the same for the kind of attack that does best",
    "injection_placebo": "the same for harmless additions",
    "injection_excess": "success of attacks minus that of harmless additions to the same pairs",
    "injection_label_flips": "share of pairs whose label, orders averaged, an attack turns",
    "injection_broken": "share of verdicts that an attack makes unreadable",
    "fence_escapes": "share of verdicts that an attack turns where a reader obeys only what stands outside fences",
}
"""Figure → what it says in one line."""
