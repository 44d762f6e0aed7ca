"""The shape of pipelines/*.yaml. An unknown key is an error; every key has a comment with its unit.

Paths in a config are relative to the working folder; `shipped:NAME/…` is a file that ships with rlaif, `run:NAME` in
`model:` what this run trained. A stage runs when its section is there.
"""

from rlaif.config.auditing import AuditSection, Gate, InjectionSection
from rlaif.config.base import Section, Source, apply_override, read_yaml, telling_fault, validate
from rlaif.config.calibration import CalibrateSection
from rlaif.config.data import Budget, EngineSpec, ExportSection, GenerateSection, Price, Sampler
from rlaif.config.evaluation import EvaluateSection, ReportSection, SkillSection
from rlaif.config.guarding import GuardSection, Limit
from rlaif.config.judging import JudgeSection, PairSection, ReviseSection
from rlaif.config.pipeline import Pipeline, load
from rlaif.config.training import (
    DPOSection,
    GRPOSection,
    KTOSection,
    OnlineSection,
    PPOSection,
    Replay,
    RewardSection,
    SFTSection,
    TrainSection,
)

__all__ = [
    "AuditSection",
    "Budget",
    "CalibrateSection",
    "DPOSection",
    "EngineSpec",
    "EvaluateSection",
    "ExportSection",
    "GRPOSection",
    "Gate",
    "GenerateSection",
    "GuardSection",
    "InjectionSection",
    "JudgeSection",
    "KTOSection",
    "Limit",
    "OnlineSection",
    "PPOSection",
    "PairSection",
    "Pipeline",
    "Price",
    "Replay",
    "ReportSection",
    "ReviseSection",
    "RewardSection",
    "SFTSection",
    "Sampler",
    "Section",
    "SkillSection",
    "Source",
    "TrainSection",
    "apply_override",
    "load",
    "read_yaml",
    "telling_fault",
    "validate",
]
