"""The typed recipe: schema, loading with overrides, the stage graph. Imports no torch."""

from __future__ import annotations

from r1kit.config.algorithm import AlgorithmSettings
from r1kit.config.corpus import CorpusSettings
from r1kit.config.errors import ConfigError, UserError
from r1kit.config.graph import stage_inputs, stage_order
from r1kit.config.load import dump_recipe, load_recipe, parse_recipe
from r1kit.config.machine import resolve, resolve_device, resolve_dtype, resolve_processes, usable_cores
from r1kit.config.parts import (
    DynamicSamplingSettings,
    EngineSettings,
    EvalSettings,
    ModelSettings,
    OptimizerSettings,
    SamplingSettings,
    TrainingEvalSettings,
)
from r1kit.config.rewards import OverlongSettings, RewardSettings
from r1kit.config.rl import RLSettings
from r1kit.config.sandbox import SandboxSettings
from r1kit.config.schema import (
    EvaluateSettings,
    PretrainSettings,
    Recipe,
    ReportSettings,
    StageSettings,
)
from r1kit.config.tasks import CountdownSettings, MultiplicationSettings, TaskSettings

__all__ = [
    "AlgorithmSettings",
    "ConfigError",
    "CorpusSettings",
    "CountdownSettings",
    "DynamicSamplingSettings",
    "EngineSettings",
    "EvalSettings",
    "EvaluateSettings",
    "ModelSettings",
    "MultiplicationSettings",
    "OptimizerSettings",
    "OverlongSettings",
    "PretrainSettings",
    "RLSettings",
    "Recipe",
    "ReportSettings",
    "RewardSettings",
    "SamplingSettings",
    "SandboxSettings",
    "StageSettings",
    "TaskSettings",
    "TrainingEvalSettings",
    "UserError",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "resolve",
    "resolve_device",
    "resolve_dtype",
    "resolve_processes",
    "stage_inputs",
    "stage_order",
    "usable_cores",
]
