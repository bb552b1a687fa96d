"""Credit models that read the true MDP: the same interface as the learned ones, nothing is fitted.

The state is the table that a learned model would approximate, recomputed from the acting policy at
each update (COCOA, arXiv 2306.16803, appendix on ground truth).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from agents.credit import estimators
from agents.credit.config import RETURN_METHODS, VALUE_METHODS, CreditConfig
from agents.credit.distinct import evaluate_distinct
from agents.credit.learned import reinforce_model
from agents.credit.model import (
    IGNORED,
    CreditModel,
    WorldSpec,
    contribution_table,
    one_at_a_time,
    zero_counts,
)
from agents.credit.trajectory import LogPolicy, Trajectory
from envs.credit import exact
from envs.credit.mdp import REWARD_DECIMALS, FiniteMDP


def state_index(mdp: FiniteMDP, obs: Float[Array, "T D"]) -> Int[Array, " T"]:
    """Which state of the MDP each observation is."""

    def nearest(known: Array, obs: Array) -> Array:
        # States last: observations are short, and a sum over the last axis would use no vector unit.
        return jnp.argmin(jnp.sum(jnp.square(obs[:, :, None] - known.T[None]), axis=1), axis=1)

    return evaluate_distinct(nearest)(jnp.asarray(mdp.observations, obs.dtype), obs)


def ignored(mdp: FiniteMDP, batch: Trajectory) -> dict[str, Int[Array, ""]]:
    """Rewards and states of a batch that the tables do not have: `table` would take the nearest."""
    values = jnp.asarray(mdp.reward_values, batch.reward.dtype)
    known = jnp.asarray(mdp.observations, batch.obs.dtype)
    obs, alive = batch.obs[:, :-1], batch.alive > 0
    distance = jnp.min(jnp.abs(batch.reward[..., None] - values[None, None]), axis=-1)
    nearest = known[jax.vmap(lambda x: state_index(mdp, x))(obs)]
    # As in the enumeration; large numbers carry less than 4 decimals in float32.
    same = jnp.isclose(obs, nearest, rtol=1e-6, atol=10**-REWARD_DECIMALS).all(-1)
    return {
        "unmatched_rewards": jnp.sum(alive & (distance >= 10**-REWARD_DECIMALS), dtype=jnp.int32),
        "unknown_states": jnp.sum(alive & ~same, dtype=jnp.int32),
    }


def exact_model(
    config: CreditConfig,
    spec: WorldSpec,
    mdp: FiniteMDP,
    encoding: exact.Encoding | None = None,
) -> CreditModel:
    """The exact twin of any method.

    Args:
        mdp: tables of the environment.
        encoding: outcomes to use instead of the method's own (hindsight methods only), e.g. groups
            of rewards in the tree.
    """
    if config.method == "reinforce":
        return reinforce_model(config, spec)
    if config.method in VALUE_METHODS:
        return _value_model(config, mdp)
    if config.method in RETURN_METHODS:
        return _return_model(config, mdp)
    return _contribution_model(config, mdp, encoding)


def _contribution_model(
    config: CreditConfig, mdp: FiniteMDP, encoding: exact.Encoding | None
) -> CreditModel:
    if encoding is None:
        encoding = {
            "cocoa_reward": exact.reward_encoding,
            "cocoa_feature": exact.mean_reward_encoding,
        }.get(config.method, exact.state_encoding)(mdp)
    index, values = jnp.asarray(encoding.index), jnp.asarray(mdp.reward_values)
    with_reward_model = config.method == "hca"

    def compute(policy: Array) -> Array:
        counts = exact.outcome_counts(mdp, policy, encoding)
        return jnp.swapaxes(exact.contribution_ratio(counts, policy), 1, 2)  # [S, K, A]

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        states = state_index(mdp, trajectory.obs[:-1])
        reward = jnp.argmin(
            jnp.abs(trajectory.reward[:, None] - values.astype(trajectory.reward.dtype)[None]),
            axis=1,
        )
        outcome = index[states, trajectory.action, reward]
        member = jax.nn.one_hot(outcome, encoding.size, dtype=trajectory.reward.dtype)
        rewards = exact.mean_rewards(mdp)[states] if with_reward_model else None
        w = state["model"][states] - 1.0
        summed = estimators.contributions(trajectory, w, member)
        return contribution_table(trajectory, summed, key, config.action_samples, rewards)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        w = jnp.swapaxes(state["model"], 1, 2) - 1.0
        return exact.advantage_contribution(mdp, policy, encoding, w)

    shape = (mdp.num_states, encoding.size, mdp.num_actions)
    return _model(config, mdp, compute, shape, table, expected)


def _value_model(config: CreditConfig, mdp: FiniteMDP) -> CreditModel:
    of_state = config.method == "advantage"

    def compute(policy: Array) -> Array:
        found = exact.values(mdp, policy)
        return found.v if of_state else found.q

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        known = state["model"][state_index(mdp, trajectory.obs[:-1])]
        function = {
            "advantage": estimators.advantage,
            "q_critic": estimators.q_critic,
            "trajectory_cv": estimators.trajectory_cv,
        }[config.method]
        return function(trajectory, known)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        q = exact.values(mdp, policy).q
        if config.method == "advantage":
            return q - state["model"][:, None]
        if config.method == "trajectory_cv":
            return q
        found = state["model"]
        return found - jnp.sum(policy * found, axis=1, keepdims=True)

    shape = (mdp.num_states,) if of_state else (mdp.num_states, mdp.num_actions)
    return _model(config, mdp, compute, shape, table, expected)


def _return_model(config: CreditConfig, mdp: FiniteMDP) -> CreditModel:
    support, units = exact.return_support(mdp)
    lowest = float(support[0])
    spacing = float(support[1]) - lowest if len(support) > 1 else 1.0  # of a lattice
    counterfactual = config.method == "counterfactual_return"

    def compute(policy: Array) -> Array:
        returns = exact.return_distribution(mdp, policy, support, units)
        return exact.contribution_ratio(returns, policy)  # [S, A, Z]

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        states = state_index(mdp, trajectory.obs[:-1])
        z = estimators.returns_to_go(trajectory)
        nearest = jnp.clip(jnp.round((z - lowest) / spacing), 0, len(support) - 1)
        ratio = state["model"][states, :, nearest.astype(jnp.int32)]
        # Rounding may leave a taken action without probability; its term is then dropped.
        ratio = jnp.where(ratio > 0, ratio, 1.0)
        function = estimators.counterfactual_return if counterfactual else estimators.hca_return
        return function(trajectory, ratio)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        z = jnp.asarray(support, policy.dtype)
        returns = exact.return_distribution(mdp, policy, support, units)
        ratio = state["model"]
        if counterfactual:
            return exact.advantage_counterfactual_return(returns, policy, z, ratio)
        inverse = jnp.where(ratio > 0, 1.0 / jnp.where(ratio > 0, ratio, 1.0), 0.0)
        return exact.advantage_hca_return(returns, z, inverse)

    shape = (mdp.num_states, mdp.num_actions, len(support))
    return _model(config, mdp, compute, shape, table, expected)


def _model(
    config: CreditConfig,
    mdp: FiniteMDP,
    compute: Any,
    shape: tuple[int, ...],
    table: Any,
    expected: Any,
) -> CreditModel:
    def init(key: PRNGKeyArray) -> Any:
        kind = jnp.asarray(mdp.start).dtype
        # The tables of returns are larger than a core's cache, so none is kept that is not needed.
        size = shape if config.perturbation > 0 else ()
        noise = 1.0 + config.perturbation * jax.random.normal(key, size, kind)
        return {"model": jnp.zeros(shape, kind), "noise": noise}

    def update(state: Any, batch: Trajectory | None, policy: LogPolicy, key: PRNGKeyArray):
        del key  # the true MDP and the policy say it all
        obs = jnp.asarray(mdp.observations).astype(state["model"].dtype)
        found = one_at_a_time(compute)(jnp.exp(policy(obs))) * state["noise"]
        metrics = {"model_loss": jnp.float32(0.0), "outcomes": jnp.float32(0.0)}
        counts = zero_counts(*IGNORED) if batch is None else ignored(mdp, batch)
        return {**state, "model": found}, {**metrics, **counts}

    return CreditModel(init, update, table, expected)
