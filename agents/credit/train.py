"""Training with any estimator: one update is one training batch (spec 6.5), a pure function.

Roll out B episodes, update the credit model, build the contribution tables with the updated model,
take one step of the policy. COCOA (arXiv 2306.16803), appendix on the training loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray

from agents.credit import estimators
from agents.credit.distinct import distinct_value_and_grad
from agents.credit.model import CreditModel
from agents.credit.networks import adamw, apply_gradient
from agents.credit.policy import Policy
from agents.credit.trajectory import Trajectory, rollouts

# What a run's key is folded with for other things than training batches, which use their number.
EVALUATION, MEASUREMENT, FEATURE_DATA, FEATURE_TRAINING = (2**32 - i for i in range(1, 5))


@dataclass(frozen=True)
class TrainConfig:
    """Training of a policy, the same for every estimator."""

    batches: int = 10_000
    """Training batches, the x-axis of the paper's figures."""
    batch_size: int = 8
    """Episodes per training batch."""
    resample: bool = True
    """The credit model learns from batch_size episodes drawn with replacement from the batch, as the
    repository does; off: from each once."""
    epsilon: float = 0.05
    """The acting policy is (1 - epsilon) softmax + epsilon / A, and is trained as such."""
    eval_epsilon: float = 0.0
    """The same for evaluation episodes."""
    entropy: float = 0.03
    """Weight of the entropy bonus."""
    policy_clip: float = 0.0
    """Largest norm of the policy gradient; 0: no bound."""
    policy_width: int = 64
    """Units of each of the policy's two hidden layers."""
    first_state_only: bool = False
    """Train and measure the decision at t = 0 alone."""
    eval_episodes: int = 512
    """Episodes per evaluation, which happens at every log line."""
    switch_at: int = 0
    """Batch at which the rewards switch; 0: never."""


@dataclass(frozen=True)
class World:
    """An environment for training: `params_after` holds from `TrainConfig.switch_at` on."""

    env: Any
    params: Any
    horizon: int
    params_after: Any = None


@struct.dataclass
class TrainState:
    """step: training batches so far; key: of the run; policy: (parameters, optimiser state);
    credit: state of the credit model."""

    step: Int[Array, "*s"]
    key: PRNGKeyArray
    policy: Any
    credit: Any


def check_train(config: TrainConfig) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    for name in ("batches", "batch_size", "policy_width", "eval_episodes"):
        if getattr(config, name) < 1:
            raise ValueError(f"train.{name} is {getattr(config, name)}; allowed: at least 1")
    for name in ("epsilon", "eval_epsilon"):
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ValueError(f"train.{name} is {getattr(config, name)}; allowed: in [0, 1)")
    for name in ("entropy", "policy_clip", "switch_at"):
        if getattr(config, name) < 0:
            raise ValueError(f"train.{name} is {getattr(config, name)}; allowed: at least 0")


def make_init(
    config: TrainConfig, policy: Policy, model: CreditModel, policy_rate: float
) -> Callable[[PRNGKeyArray], TrainState]:
    """key -> the state before the first batch."""
    optimizer = adamw(policy_rate, clip=config.policy_clip)

    def init(key: PRNGKeyArray) -> TrainState:
        policy_key, credit_key, run_key = jax.random.split(key, 3)
        params = policy.init(policy_key)
        return TrainState(
            step=jnp.int32(0),
            key=run_key,
            policy=(params, optimizer.init(params)),
            credit=model.init(credit_key),
        )

    return init


def make_update(
    config: TrainConfig,
    world: World,
    policy: Policy,
    model: CreditModel,
    policy_rate: float,
    burn_in: int = 0,
) -> Callable[[TrainState], tuple[TrainState, dict[str, Array]]]:
    """One training batch; during the first `burn_in` batches nothing is learned."""
    optimizer = adamw(policy_rate, clip=config.policy_clip)

    def update(state: TrainState) -> tuple[TrainState, dict[str, Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        acting = policy.acting(state.policy[0], config.epsilon)
        env_params = _env_params(world, config, state.step)
        batch, info = rollouts(
            world.env, env_params, acting, keys[0], world.horizon, config.batch_size
        )
        learn_from = resample(keys[1], batch) if config.resample else batch
        credit, metrics = model.update(state.credit, learn_from, acting, keys[2])
        tables = tables_of(model, credit, batch, keys[3])

        params, opt_state = state.policy
        gradient, entropy = policy_gradient(config, policy, params, batch, tables)
        trained = apply_gradient(optimizer, params, opt_state, gradient)
        if burn_in > 0:
            learning = state.step >= burn_in
            trained, credit = jax.tree.map(
                lambda new, old: jnp.where(learning, new, old),
                (trained, credit),
                (state.policy, state.credit),
            )
        metrics = {
            **metrics,
            "return": jnp.mean(jnp.sum(batch.reward, axis=1)),
            "entropy": entropy,
            **{f"train_{name}": jnp.mean(value) for name, value in info.items()},
        }
        state = state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            step=state.step + 1,
            policy=trained,
            credit=credit,
        )
        return state, metrics

    return update


def policy_gradient(
    config: TrainConfig, policy: Policy, params: Any, batch: Trajectory, tables: Array
) -> tuple[Any, Array]:
    """Gradient of −(1/T) Σ_t alive_t (Σ_a π(a | s_t) C[t, a] + entropy weight × H), mean over the batch;
    and the mean of (1/T) Σ_t alive_t H."""
    weight = batch.alive
    if config.first_state_only:
        weight = weight.at[:, 1:].set(0.0)
    # The mean over the fixed number of steps: the learning rates assume it.
    weight = weight / batch.action.size

    def loss(params: Any, obs: Array, weights: tuple[Array, Array]) -> tuple[Array, Array]:
        log_policy = policy.acting(params, config.epsilon)(obs)
        weighted, steps = weights
        objective = estimators.all_actions_objective(log_policy, weighted, jnp.ones_like(steps))
        entropy = -jnp.sum(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1) * steps)
        return -objective - config.entropy * entropy, entropy

    weights = weight[..., None] * tables, weight
    (_, entropy), gradient = distinct_value_and_grad(
        loss, params, batch.obs[:, :-1], weights, has_aux=True
    )
    return gradient, entropy


def make_evaluate(
    config: TrainConfig, world: World, policy: Policy
) -> Callable[[TrainState], dict[str, Array]]:
    """state -> mean return and mean of the environment's `info` at the end of fresh episodes."""

    def evaluate(state: TrainState) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, EVALUATION), state.step)
        acting = policy.acting(state.policy[0], config.eval_epsilon)
        env_params = _env_params(world, config, state.step)
        batch, info = rollouts(
            world.env, env_params, acting, key, world.horizon, config.eval_episodes
        )
        found = {f"eval_{name}": jnp.mean(value) for name, value in info.items()}
        return {**found, "eval_return": jnp.mean(jnp.sum(batch.reward, axis=1))}

    return evaluate


def resample(key: PRNGKeyArray, batch: Trajectory) -> Trajectory:
    """As many trajectories, drawn with replacement."""
    size = batch.action.shape[0]
    index = jax.random.randint(key, (size,), 0, size, jnp.int32)
    return jax.tree.map(lambda x: x[index], batch)


def tables_of(model: CreditModel, credit: Any, batch: Trajectory, key: PRNGKeyArray) -> Array:
    """Contribution tables [B, T, A] of a batch."""
    keys = jax.random.split(key, batch.action.shape[0])
    return jax.vmap(lambda t, k: model.table(credit, t, k))(batch, keys)


def _env_params(world: World, config: TrainConfig, step: Array) -> Any:
    if world.params_after is None or config.switch_at == 0:
        return world.params
    after = step >= config.switch_at
    return jax.tree.map(
        lambda new, old: jnp.where(after, new, old), world.params_after, world.params
    )
