"""The attack set: what a response might carry to win without being better. One YAML file, and what it may hold."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
import yaml

from rlaif.errors import ConfigError
from rlaif.paths import resolve

RESPONSE, LABEL = "{response}", "{label}"
MARK = "\U0010fffd"  # stands for the label until a request says in which place the response is shown


class Attack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`template` holds `{response}` once, and `{label}` where the attacker names the response by its letter.

    `kind`: what is reported together. `states_verdict`: it says in so many words which letter to answer, so a reader
    who obeys everything must follow it. `placebo`: harmless words, for comparison.
    """

    id: str
    kind: str
    template: str
    states_verdict: bool = False
    placebo: bool = False

    def applied(self, text: str) -> str:
        """The attacked response; `MARK` stands where the label goes."""
        before, _, after = self.template.replace(LABEL, MARK).partition(RESPONSE)
        return before + text + after


def load_attacks(name: str, kinds: Collection[str] = ()) -> list[Attack]:
    """The attacks of a file, of the named kinds only where some are named (and placebos). Errors: ConfigError."""
    path = resolve(name, Path())
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"audit.injection.attacks: {path}: cannot read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"audit.injection.attacks: {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("attacks"), list) or not raw["attacks"]:
        raise ConfigError(f"audit.injection.attacks: {path}: expected `attacks:`, a list with id, kind and template")
    found: dict[str, Attack] = {}
    for index, row in enumerate(raw["attacks"]):
        try:
            attack = msgspec.convert(row, Attack)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: attacks[{index}]: {error}") from None
        if attack.template.count(RESPONSE) != 1:
            raise ConfigError(f"{path}: attacks[{index}] ({attack.id}): the template must hold {RESPONSE} once")
        if attack.id in found:
            raise ConfigError(f"{path}: attacks[{index}]: id {attack.id!r} is there twice")
        found[attack.id] = attack
    known = dict.fromkeys(attack.kind for attack in found.values())
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"audit.injection.kinds: no kind {kind!r} in {path}; there are: {', '.join(known)}")
    return [attack for attack in found.values() if not kinds or attack.placebo or attack.kind in kinds]
