"""Do switches fall on true sub-goal changes? (paper Figs 6, A3)."""

import jax
import jax.numpy as jnp


def switch_alignment(
    switch_probability: jax.Array,
    goal_change: jax.Array,
    valid: jax.Array,
    *,
    threshold: float = 0.5,
) -> dict[str, jax.Array]:
    """Precision, recall and F1 of hard switches against true sub-goal changes, matched at the exact step.

    The first step of an episode is left out on both sides: it switches by definition, and would flatter the score.

    Args:
        switch_probability: β_t without noise [B, T].
        goal_change: [B, T] bool, the active sub-goal differs from the step before.
        valid: [B, T] bool.
        threshold: β_threshold.

    Returns:
        precision, recall, f1, and switches per episode (first step included). An empty denominator counts as 0.
    """
    counted = valid.at[:, 0].set(False)
    switch = (switch_probability >= threshold) & counted
    change = goal_change & counted
    count = lambda mask: jnp.sum(mask.astype(jnp.float32))  # noqa: E731
    hit = count(switch & change)
    precision = hit / jnp.maximum(count(switch), 1.0)
    recall = hit / jnp.maximum(count(change), 1.0)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2.0 * hit / jnp.maximum(count(switch) + count(change), 1.0),
        "switches_per_episode": 1.0 + count(switch) / valid.shape[0],
    }
