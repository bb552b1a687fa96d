"""Policy-gradient objectives. Each acts on log-probabilities, so it serves codes z and raw actions alike.

Letters: B episodes, T steps (abstract or raw).
"""

import jax
import jax.numpy as jnp


def trajectory_advantage(episode_return: jax.Array, delta: float) -> jax.Array:
    """A = (R − mean R) / (std R + δ) over the batch [B]: one number per episode (arXiv 2512.20605, App. C.5)."""
    centred = episode_return - jnp.mean(episode_return)
    return centred / (jnp.std(episode_return) + delta)


def ppo_clip(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantage: jax.Array,
    mask: jax.Array,
    clip: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7) as a loss.

    Args:
        log_prob: log π(a_t | ·) under the parameters being trained [B, T].
        old_log_prob: the same under the parameters that acted [B, T].
        advantage: [B, T].
        mask: [B, T] bool, the steps at which the policy acted.
        clip: ε.

    Returns:
        The mean loss over unmasked steps, and diagnostics. On the first epoch the ratio is 1 and the gradient is
        REINFORCE's.
    """
    ratio = jnp.exp(jnp.where(mask, log_prob - old_log_prob, 0.0))
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    objective = jnp.minimum(ratio * advantage, clipped * advantage)
    weight = mask.astype(objective.dtype)
    count = jnp.maximum(jnp.sum(weight), 1.0)
    mean = lambda x: jnp.sum(x * weight) / count  # noqa: E731
    diagnostics = {
        "approx_kl": mean(ratio - 1.0 - jnp.log(ratio)),
        "clip_fraction": mean((jnp.abs(ratio - 1.0) > clip).astype(objective.dtype)),
    }
    return -mean(objective), diagnostics
