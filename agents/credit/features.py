"""Reward-predicting features of COCOA-feature: a linear backbone of squared weights, thresholded.

COCOA (arXiv 2306.16803), appendix. The features are trained once, on transitions of the untrained
policy, to predict the reward; u = 1[backbone output > 0] then says which rewarding object a step
holds. Letters: N transitions, A actions, D observation entries, H features.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from agents.credit.networks import Params, adamw, fit_step, linear, linear_init

Backbone = Literal["gate", "mask"]


def features_init(
    key: PRNGKeyArray, backbone: Backbone, obs_dim: int, actions: int, width: int
) -> Params:
    """gate: H features per action, each a weighting of the observation. mask: the observation itself,
    one weight per action and entry (H = D)."""
    gate_key, read_key = jax.random.split(key)
    if backbone == "gate":
        weights = 0.05 + jax.random.normal(gate_key, (actions, width, obs_dim))
    else:
        width, weights = obs_dim, jnp.ones((actions, obs_dim))
    return {"backbone": weights, "readout": linear_init(read_key, width, 1)}


def features(
    params: Params,
    obs: Float[Array, "N D"],
    action: Int[Array, " N"],
    threshold: float,
    binary: bool,
) -> Float[Array, "N H"]:
    """1[pre > threshold], or pre times that, with the gradient of pre."""
    weights = jnp.square(params["backbone"])
    if weights.ndim == 3:
        taken = jax.nn.one_hot(action, weights.shape[0], dtype=obs.dtype)
        both = (taken[:, :, None] * obs[:, None]).reshape(obs.shape[0], -1)
        pre = both @ jnp.swapaxes(weights, 1, 2).reshape(both.shape[1], -1)
    else:
        pre = weights[action] * obs
    on = (pre > threshold).astype(pre.dtype)
    value = on if binary else pre * on
    return pre + jax.lax.stop_gradient(value - pre)


def train_features(
    key: PRNGKeyArray,
    data: dict[str, Any],
    *,
    backbone: Backbone,
    width: int,
    threshold: float,
    binary: bool,
    steps: int,
    learning_rate: float,
    shrink_backbone: float,
    shrink_readout: float,
    actions: int,
) -> tuple[Params, Array]:
    """`steps` full-batch steps on ½ (prediction − reward)², shrinking the weights after each.

    Args:
        data: from `distinct_transitions`.
        shrink_backbone, shrink_readout: η1 and η2; multiplying squared gates by (1 − η1) acts as L1.

    Returns:
        Parameters and the last loss.
    """
    obs, action = jnp.asarray(data["obs"]), jnp.asarray(data["action"])
    reward, weight = jnp.asarray(data["reward"]), jnp.asarray(data["weight"])
    params = features_init(key, backbone, obs.shape[1], actions, width)
    optimizer = adamw(learning_rate, weight_decay=0.0)

    def loss(params: Params) -> Array:
        found = linear(params["readout"], features(params, obs, action, threshold, binary))[:, 0]
        return jnp.sum(weight * 0.5 * jnp.square(found - reward))

    def step(state: Any, _: None) -> tuple[Any, Array]:
        (params, opt_state), value = fit_step(optimizer, loss, state)
        params = {
            "backbone": (1.0 - shrink_backbone) * params["backbone"],
            "readout": jax.tree.map(lambda x: (1.0 - shrink_readout) * x, params["readout"]),
        }
        return (params, opt_state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)
    return params, losses[-1]


def distinct_transitions(
    obs: Any, action: Any, reward: Any, size: int | None = None
) -> dict[str, np.ndarray]:
    """Distinct (observation, action) pairs with their mean reward and their share of the data.

    The squared error over all transitions and over these differ by a constant, and a finite world
    has far fewer of them. Host side.

    Args:
        obs, action, reward: [N, D], [N], [N].
        size: pad to this many rows of weight zero.
    """
    obs, action, reward = np.asarray(obs), np.asarray(action), np.asarray(reward)
    rows = np.concatenate([np.round(obs, 4), action[:, None].astype(obs.dtype)], axis=1)
    _, first, which, count = np.unique(
        rows, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.bincount(which.reshape(-1), weights=reward) / count
    pad = (size or len(first)) - len(first)
    padded = lambda x: np.concatenate([x, np.zeros((pad, *x.shape[1:]), x.dtype)])  # noqa: E731
    return {
        "obs": padded(obs[first]),
        "action": padded(action[first]),
        "reward": padded(mean.astype(obs.dtype)),
        "weight": padded((count / len(rows)).astype(obs.dtype)),
    }
