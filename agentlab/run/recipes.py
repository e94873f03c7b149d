"""Recipes: the settings of published scores as settings of a run."""

from __future__ import annotations

from typing import Any

from agentlab.disk.store import flatten
from envs.errors import UsageError, did_you_mean
from policies.families.base import Recipe
from policies.families.registry import recipes


def recipe_named(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UsageError: there is no such recipe.
    """
    known = recipes()
    if name not in known:
        raise UsageError(
            f"There is no recipe {name!r}.", did_you_mean(name, known, what="recipe") + " `agentlab recipes` lists them."
        )
    return known[name]


def settings_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """The settings of a run that make it the recipe's: one attempt, and no adaptation unless the user asks for one."""
    settings: dict[str, Any] = {"policy": recipe.policy, "attempts": 1}
    if recipe.steps is not None:
        settings["max_steps"] = recipe.steps
    sections = {"sampling": recipe.sampling, "model": recipe.model, "env": recipe.env}
    return settings | {name: dict(values) for name, values in sections.items() if values}


def lines_of(recipe: Recipe) -> list[str]:
    """All that a recipe says, for people."""
    score = "no number is published" if recipe.score is None else f"{recipe.score:g} %"
    lines = [f"{recipe.name}: {score}", f"source: {recipe.source} ({recipe.source.what})"]
    lines += [f"{key} = {value}" for key, value in flatten(settings_of_recipe(recipe)).items()]
    lines.append(f"benchmark: {recipe.benchmark}")
    return [*lines, f"note: {recipe.note}"] if recipe.note else lines
