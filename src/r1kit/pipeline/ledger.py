"""ledger.json: what a run cost, in tokens, seconds, CPU seconds, and energy and money at stated rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.config.schema import RateSettings

# What became of sampled tokens; masked: of responses cut at the cap, which were compared with others and not trained.
TOKENS = ("sampled", "trained", "masked", "discarded")


def make_ledger(records: Mapping[str, Mapping[str, Any]], rates: RateSettings) -> dict[str, Any]:
    """The ledger of the stages in `records` (by name; unfinished ones with what is known so far).

    Seconds count every attempt of a stage, interrupted ones included; energy is watts x seconds of the whole
    machine.
    """
    stages = {name: _entry(record) for name, record in records.items()}
    total: dict[str, Any] = {
        "tokens": {kind: sum(entry["tokens"][kind] for entry in stages.values()) for kind in TOKENS},
        "seconds": round(sum(entry["seconds"] for entry in stages.values()), 3),
        "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in stages.values()), 3),
    }
    hours = total["seconds"] / 3600
    if rates.watts is not None:
        total["energy_kwh"] = round(rates.watts * hours / 1000, 6)
    if rates.price_per_hour is not None:
        total["cost"] = {"amount": round(rates.price_per_hour * hours, 4), "currency": rates.currency}
    return {"stages": stages, "total": total, "rates": rates.model_dump(exclude_none=True)}


def _entry(record: Mapping[str, Any]) -> dict[str, Any]:
    tokens = record.get("tokens") or {}
    return {
        "tokens": {kind: int(tokens.get(kind, 0)) for kind in TOKENS},
        "seconds": round(float(record.get("seconds", 0.0)), 3),
        "cpu_seconds": round(float(record.get("cpu_seconds", 0.0)), 3),
        "attempts": int(record.get("attempts", 1)),
    }
