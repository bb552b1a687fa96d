"""Small networks as pairs of plain functions: `init(key) -> params`, `apply(params, x)`.

Initialised as the COCOA repository's (Haiku's default): truncated normal of standard deviation
1 / sqrt(fan-in), cut at two of them without correction; biases zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

Params = Any


def linear_init(key: PRNGKeyArray, fan_in: int, fan_out: int) -> dict[str, Array]:
    """Weights [fan_in, fan_out] and biases [fan_out]."""
    w = jax.random.truncated_normal(key, -2.0, 2.0, (fan_in, fan_out)) / fan_in**0.5
    return {"w": w, "b": jnp.zeros(fan_out, w.dtype)}


def linear(params: dict[str, Array], x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    out = x @ params["w"]
    return out + jnp.broadcast_to(params["b"], out.shape)


def mlp_init(key: PRNGKeyArray, sizes: tuple[int, ...]) -> list[dict[str, Array]]:
    """Layers between consecutive sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [linear_init(k, i, o) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]


def mlp(params: list[dict[str, Array]], x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    """ReLU between layers, none after the last."""
    for layer in params[:-1]:
        x = jax.nn.relu(linear(layer, x))
    return linear(params[-1], x)


def mixed_log_policy(logits: Float[Array, "*b A"], epsilon: float | Array) -> Float[Array, "*b A"]:
    """log π of π = (1 − ε) softmax(logits) + ε / A; gradients flow through the mixture."""
    log_soft = jax.nn.log_softmax(logits, axis=-1)
    if isinstance(epsilon, float) and epsilon == 0.0:
        return log_soft
    eps = jnp.asarray(epsilon, logits.dtype)
    return jnp.log((1.0 - eps) * jnp.exp(log_soft) + eps / logits.shape[-1])


def adamw(
    learning_rate: float, weight_decay: float = 1e-4, clip: float = 0.0
) -> optax.GradientTransformation:
    """AdamW with optax's defaults; `clip` > 0 bounds the global norm of the gradient first."""
    rule = optax.adamw(learning_rate, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip), rule) if clip > 0 else rule


def apply_gradient(
    optimizer: optax.GradientTransformation, params: Params, opt_state: Any, gradient: Params
) -> tuple[Params, Any]:
    """One optimiser step."""
    # optax raises β to an integer count, which strict promotion (on in the tests) forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def fit_step(
    optimizer: optax.GradientTransformation, loss: Callable[[Params], Array], state: Any
) -> tuple[Any, Array]:
    """One gradient step on `loss` for a state (params, optimiser state); returns the loss too."""
    params, opt_state = state
    value, gradient = jax.value_and_grad(loss)(params)
    return apply_gradient(optimizer, params, opt_state, gradient), value
