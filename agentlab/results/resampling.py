"""Intervals and p values by resampling and flipping whole clusters, of values paired by place."""

from __future__ import annotations

from collections.abc import Sequence

Interval = tuple[float, float]
BLOCK = 1_000_000
"""Draws held in memory at a time, of 8 bytes each: all resamples of a run of 12,000 instances would be 2 GB."""


def clusters(names: Sequence[str], instances: Sequence[str] | None = None) -> list[str]:
    """What is resampled together: instances of one task; where there is one task only, repeats of one instance (``instances``, one per
    value; each its own if None); of one instance, its repeats are all there is to resample.
    """
    if len(set(names)) > 1:
        return list(names)
    return list(instances) if instances is not None and len(set(instances)) > 1 else [str(i) for i in range(len(names))]


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> tuple[float, Interval]:
    """Mean of ``b - a`` over paired tasks and its percentile interval.

    Args:
        a: One value per task (e.g. solved within k: 0 or 1).
        b: The other run's value for the same task at the same place.
        seed: Of the resampling.
        resamples: Bootstrap resamples.
        level: Coverage of the interval.
        groups: If given, whole groups (e.g. task names) are resampled instead of single tasks.

    Raises:
        ValueError: different lengths, or nothing to compare.
    """
    import numpy as np

    if len(a) != len(b) or not a or (groups is not None and len(groups) != len(a)):
        raise ValueError(f"paired values needed, got {len(a)} and {len(b)}")
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1] if groups is not None else np.arange(len(a))
    sums = np.bincount(labels, weights=difference)  # [G]
    sizes = np.bincount(labels).astype(float)  # [G]
    generator, means = np.random.default_rng(seed), np.empty(resamples)
    for rows in np.array_split(np.arange(resamples), max(1, resamples * len(sums) // BLOCK)):  # the numbers are those of one block
        drawn = generator.integers(0, len(sums), size=(len(rows), len(sums)))  # [B, G]
        means[rows] = sums.take(drawn).sum(axis=1) / sizes.take(drawn).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), (float(low), float(high))


def bootstrap_mean(
    values: Sequence[float], *, seed: int, resamples: int = 10_000, level: float = 0.95, groups: Sequence[str] | None = None
) -> tuple[float, Interval]:
    """Mean over tasks and its percentile interval."""
    return paired_bootstrap([0.0] * len(values), values, seed=seed, resamples=resamples, level=level, groups=groups)


EXACT_CLUSTERS = 16
"""Clusters up to which all sign patterns are gone through."""


def sign_flip(a: Sequence[float], b: Sequence[float], groups: Sequence[str], *, seed: int = 0, draws: int = 100_000) -> float:
    """Two-sided p of the sign-flip test that ``b - a`` has no direction, whole groups (task names, families) flipped together.

    Instances of one task are alike: a test that takes each for a witness of its own, like McNemar's, gives p values that are too
    small by orders.  Where every instance is its own group this is McNemar's exact test.  Exact up to :data:`EXACT_CLUSTERS` groups that
    differ, else from ``draws`` patterns, never below 1 / (draws + 1).

    Raises:
        ValueError: different lengths.
    """
    import numpy as np

    if not len(a) == len(b) == len(groups):
        raise ValueError(f"paired values and their groups needed, got {len(a)}, {len(b)} and {len(groups)}")
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(labels, weights=np.asarray(b, dtype=float) - np.asarray(a, dtype=float))
    sums = sums[sums != 0]  # [G]; groups without a difference stay without one
    seen = abs(sums.sum()) - 1e-9
    if len(sums) <= EXACT_CLUSTERS:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1  # [2^G, G]
        return float((abs((2 * patterns - 1) @ sums) >= seen).mean())
    generator, hits = np.random.default_rng(seed), 0
    for block in np.array_split(np.arange(draws), max(1, draws * len(sums) // 5_000_000)):
        signs = 2 * generator.integers(0, 2, size=(len(block), len(sums)), dtype=np.int8) - 1
        hits += int((abs(signs @ sums) >= seen).sum())
    return (hits + 1) / (draws + 1)
