"""How much each query is credited for each answer in task interleaving (COCOA, Fig. 4C)."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from agents.credit.config import HINDSIGHT_METHODS
from agents.credit.model import CreditModel
from agents.credit.train import MEASUREMENT, TrainState
from agents.credit.trajectory import Trajectory, rollouts
from envs.credit import Interleaving
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.run import build_model, build_policy, last_state
from internal_rl.credit.world import build_world
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir

_AT_ONCE = 8  # rewards whose coefficients with all earlier steps are in memory together


def contribution_map(
    config: CreditRunConfig, state: TrainState, episodes: int = 64, *, refresh: bool = False
) -> Float[np.ndarray, "C C"]:
    """Mean of Σ_a π(a | S_t) |w(S_t, a, U_t')| over pairs t < t' of a query of context i (row) and a
    rewarded answer of context j (column), under the acting policy (spec 5.2). Rows sum to 1; a pair
    of contexts that never occurs counts as 0.

    Args:
        config: an interleaving world with one of the hindsight methods.
        state: of one seed.
        episodes: sampled for the mean.
        refresh: recompute the credit model at the state's policy first; for exact models.
    """
    # Over all actions, also where training samples some of them.
    config = replace(config, credit=replace(config.credit, action_samples=0))
    built = build_world(config.world)
    env = built.world.env
    if not isinstance(env, Interleaving) or config.credit.method not in HINDSIGHT_METHODS:
        raise UserError(
            f"world.kind is {config.world.kind!r} and credit.method {config.credit.method!r}; allowed "
            f"for a contribution map: 'interleaving' and {', '.join(HINDSIGHT_METHODS)}"
        )
    model, policy = build_model(config.credit, built), build_policy(config, built)
    key = jax.random.fold_in(state.key, MEASUREMENT)

    @jax.jit
    def refreshed(credit: Any, params: Any) -> Any:
        # Exact models take nothing from the batch but its policy.
        acting = policy.acting(params, config.train.epsilon)
        return model.update(credit, None, acting, key)[0]  # pyright: ignore[reportArgumentType]

    @jax.jit
    def sums(credit: Any, params: Any, keys: Array) -> tuple[Array, Array]:
        world, acting = built.world, policy.acting(params, config.train.epsilon)

        def of_episode(key: Array) -> tuple[Array, Array]:
            batch, _ = rollouts(world.env, world.params, acting, key, world.horizon, 1)
            trajectory = jax.tree.map(lambda x: x[0], batch)
            return _sums(model, credit, trajectory, env.contexts)

        return jax.lax.map(of_episode, keys)

    # Weights and tables are arguments: as constants XLA would fold products of large ones, slowly.
    params = state.policy[0]
    credit = refreshed(state.credit, params) if refresh else state.credit
    total, count = sums(credit, params, jax.random.split(key, episodes))
    total, count = np.asarray(total.sum(0)), np.asarray(count.sum(0))
    mean = total / np.maximum(count, 1)
    return mean / np.maximum(mean.sum(1, keepdims=True), 1e-12)


def run_map(run: RunDir, episodes: int = 64) -> Float[np.ndarray, "N C C"]:
    """`contribution_map` of every seed of a finished run, with the model it has learned."""
    config = run.load_config(CreditRunConfig)
    states = last_state(run)
    return np.stack(
        [
            contribution_map(config, jax.tree.map(lambda x, i=i: x[i], states), episodes)
            for i in range(run.info["num_seeds"])
        ]
    )


def _sums(
    model: CreditModel, credit: Any, trajectory: Trajectory, contexts: int
) -> tuple[Float[Array, "C C"], Float[Array, "C C"]]:
    """Σ over pairs of Σ_a π |w|, and the number of pairs, by contexts of query and answer."""
    obs, policy = trajectory.obs[:-1], jnp.exp(trajectory.log_policy)
    steps = trajectory.action.shape[0]
    reward = trajectory.reward * trajectory.alive
    context, answer = obs[:, :contexts], obs[:, contexts]

    def table_of(paid: Array) -> Float[Array, "T A"]:
        return model.table(credit, trajectory.replace(reward=paid), jax.random.key(0))  # pyright: ignore[reportAttributeAccessIssue]

    unpaid = table_of(jnp.zeros_like(reward))  # 0, but for original HCA, whose r̂ is in every row

    def of_reward(step: Array) -> Float[Array, " T"]:
        # A table is linear in the rewards, so an episode that is paid at one step only has w(s_t, a,
        # u_t') R_t' in its rows before that step: every estimator's coefficients, learned or exact.
        only = jnp.where(jnp.arange(steps) == step, reward, 0.0)
        table = table_of(only) - unpaid
        size = jnp.sum(policy * jnp.abs(table), axis=1)
        return size / jnp.where(reward[step] > 0, reward[step], 1.0)

    sizes = jax.lax.map(of_reward, jnp.arange(steps), batch_size=_AT_ONCE).T  # [t, t']
    pairs = jnp.triu(jnp.ones((steps, steps), sizes.dtype), 1)
    pairs = pairs * (1.0 - answer)[:, None] * trajectory.alive[:, None]
    pairs = pairs * (answer * (reward > 0).astype(sizes.dtype))[None]
    collect = lambda x: jnp.einsum("ti,ts,sj->ij", context, x, context)  # noqa: E731
    return collect(pairs * sizes), collect(pairs)
