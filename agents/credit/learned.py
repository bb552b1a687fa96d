"""Credit models learned from the trajectories themselves.

One gradient step per training batch each, on the networks of COCOA's appendix (arXiv 2306.16803).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit import estimators, hindsight
from agents.credit.config import CreditConfig
from agents.credit.distinct import Separable, distinct_fit_step, evaluate_distinct
from agents.credit.features import features
from agents.credit.hindsight import Outcomes
from agents.credit.model import (
    CreditModel,
    WorldSpec,
    batch_mean,
    contribution_table,
    one_at_a_time,
    zero_counts,
)
from agents.credit.networks import Params, adamw, apply_gradient, fit_step, mlp, mlp_init
from agents.credit.state_pairs import contributions_of_pairs, value_and_grad_of_pairs
from agents.credit.successor import successor_loss
from agents.credit.targets import alive_share, lambda_targets
from agents.credit.trajectory import Trajectory
from envs.credit import exact
from envs.credit.mdp import FiniteMDP


def reinforce_model(config: CreditConfig, spec: WorldSpec) -> CreditModel:
    """REINFORCE has no model."""
    del config, spec
    return CreditModel(
        init=lambda key: (),
        update=lambda state, batch, policy, key: (state, _metrics()),
        table=lambda state, trajectory, key: estimators.reinforce(trajectory),
        expected_advantage=lambda state, mdp, policy: exact.values(mdp, policy).q,
    )


def value_model(config: CreditConfig, spec: WorldSpec) -> CreditModel:
    """Advantage: V(s), learned by TD(λ) with targets of the parameters before the step."""
    optimizer = adamw(config.model_rate)
    sizes = (spec.obs_dim, config.value_width, 1)

    def value(params: Params, obs: Array) -> Array:
        return mlp(params, obs)[..., 0]

    def update(state: Any, batch: Trajectory, policy: Any, key: PRNGKeyArray):
        def target(trajectory: Trajectory) -> Array:
            following = evaluate_distinct(value)(state[0], trajectory.obs[1:])
            return lambda_targets(trajectory, following, config.trace)

        share = jax.vmap(alive_share)(batch)[..., None]
        state, found = _regression_step(optimizer, state, batch, share, jax.vmap(target)(batch))
        return state, _metrics(found)

    return CreditModel(
        init=_initialiser(lambda key: mlp_init(key, sizes), optimizer),
        update=update,
        table=lambda state, trajectory, key: estimators.advantage(
            trajectory, evaluate_distinct(value)(state[0], trajectory.obs[:-1])
        ),
        expected_advantage=lambda state, mdp, policy: (
            exact.values(mdp, policy).q - value(state[0], jnp.asarray(mdp.observations))[:, None]
        ),
    )


def action_value_model(config: CreditConfig, spec: WorldSpec) -> CreditModel:
    """Q-critic and TrajCV: Q(s, a), learned by Q(λ) with targets of the parameters before the step."""
    optimizer = adamw(config.model_rate)
    sizes = (spec.obs_dim, config.value_width, spec.num_actions)
    critic = config.method == "q_critic"

    def update(state: Any, batch: Trajectory, policy: Any, key: PRNGKeyArray):
        def target(trajectory: Trajectory) -> Array:
            q = evaluate_distinct(mlp)(state[0], trajectory.obs[1:])
            if config.q_bootstrap == "max":
                following = jnp.max(q, axis=-1)
            else:
                following = jnp.sum(jnp.exp(policy(trajectory.obs[1:])) * q, axis=-1)
            return lambda_targets(trajectory, following, config.trace)

        share = 0.5 * jax.vmap(alive_share)(batch)[..., None] * batch.taken
        state, found = _regression_step(optimizer, state, batch, share, jax.vmap(target)(batch))
        return state, _metrics(found)

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        q = evaluate_distinct(mlp)(state[0], trajectory.obs[:-1])
        function = estimators.q_critic if critic else estimators.trajectory_cv
        return function(trajectory, q)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        if not critic:
            return exact.values(mdp, policy).q  # unbiased whatever Q is
        q = mlp(state[0], jnp.asarray(mdp.observations))
        return q - jnp.sum(policy * q, axis=1, keepdims=True)

    return CreditModel(
        _initialiser(lambda key: mlp_init(key, sizes), optimizer), update, table, expected
    )


def hindsight_model(
    config: CreditConfig, spec: WorldSpec, feature_params: Params | None = None
) -> CreditModel:
    """HCA, HCA+, COCOA-reward and COCOA-feature: coefficients from a hindsight network, which
    COCOA-reward may also learn from successor counts.

    Args:
        feature_params: of COCOA-feature's frozen network. They go into the model's state, so that
            seeds with their own features can be vmapped.
    """
    optimizer = adamw(config.model_rate, clip=config.hindsight_clip)
    reward_optimizer = adamw(config.model_rate)
    values = tuple(v for v in spec.reward_values if v != 0.0)
    with_reward_model = config.method == "hca"
    of_states = config.method in ("hca", "hca_plus")
    counts_successors = config.hindsight_loss == "successor"
    feature = config.features
    # On a CPU states that pay are evaluated one by one, as they are fewer than steps, or cost no more.
    every_pair = of_states and not (config.mask_zero_reward and jax.default_backend() == "cpu")
    # Codes differ between episodes, and there are fewer than `max_outcomes`. Rewards are the same ones everywhere,
    # and cheaper all at once.
    few = config.method == "cocoa_feature" or (of_states and not every_pair)
    separable = Separable((None, 0, None), 1) if few else None

    def bits(state: Any, obs: Array, action: Array) -> Array:
        found = features(state["features"], obs, action, feature.threshold, feature.binary)
        return (found > 0).astype(obs.dtype)

    def outcomes(state: Any, trajectory: Trajectory) -> Outcomes:
        if config.method == "cocoa_reward":
            # Coefficients of the zero reward are only ever multiplied by zero.
            listed = values if config.mask_zero_reward else spec.reward_values
            return hindsight.reward_outcomes(trajectory, jnp.asarray(listed, jnp.float32))
        if config.method == "cocoa_feature":
            codes = bits(state, trajectory.obs[:-1], trajectory.action)
            limit = min(feature.max_outcomes, trajectory.action.shape[0])
            return hindsight.code_outcomes(trajectory, codes, limit, config.mask_zero_reward)
        return hindsight.state_outcomes(trajectory, config.mask_zero_reward)

    outcome_dim = {
        "cocoa_reward": len(values) if config.mask_zero_reward else len(spec.reward_values),
        "cocoa_feature": feature.width if feature.backbone == "gate" else spec.obs_dim,
    }.get(config.method, spec.obs_dim)

    def inputs(t: Trajectory, outcome: Outcomes) -> tuple[Array, Array, Array]:
        return t.obs[:-1], outcome.vectors, t.log_policy

    def logits(params: Params, seen: tuple[Array, Array, Array]) -> Float[Array, "T K A"]:
        return hindsight.hypernetwork(params, *seen)

    def ratio(x: Array, log_policy: Array) -> Float[Array, "T K A"]:
        return hindsight.learned_ratio(x, log_policy, config.hindsight_loss, config.clip_ratio)

    def coefficients(params: Params, seen: tuple[Array, Array, Array]) -> Float[Array, "T K A"]:
        return ratio(logits(params, seen), seen[2]) - 1.0

    def init(key: PRNGKeyArray) -> Any:
        net_key, other_key = jax.random.split(key)
        params = hindsight.hypernetwork_init(
            net_key, spec.obs_dim, outcome_dim, spec.num_actions, config.hindsight_width
        )
        if counts_successors:
            sizes = (spec.obs_dim, config.hindsight_width, outcome_dim)
            params["level"] = mlp_init(other_key, sizes)
        state = {"net": (params, optimizer.init(params))}
        if config.method == "cocoa_feature":
            if feature_params is None:
                raise ValueError("cocoa_feature needs trained features; see features.py")
            state["features"] = feature_params
        if with_reward_model:
            sizes = (spec.obs_dim, config.value_width, spec.num_actions)
            reward_params = mlp_init(other_key, sizes)
            state["reward"] = (reward_params, reward_optimizer.init(reward_params))
        return state

    contrastive = config.hindsight_loss == "contrastive"
    pair_loss = hindsight.contrastive_loss if contrastive else hindsight.classification_loss

    def fit_every_pair(state: Any, batch: Trajectory) -> tuple[Any, Array]:
        params, opt_state = state["net"]
        mask = config.mask_zero_reward
        value, gradient = value_and_grad_of_pairs(pair_loss, params, batch, mask)
        return apply_gradient(optimizer, params, opt_state, gradient), value

    def fit(state: Any, batch: Trajectory, found: Outcomes) -> tuple[Any, Array]:
        def weights(t: Trajectory, outcome: Outcomes) -> Array:
            counts = hindsight.pair_counts(t, outcome, config.mask_zero_reward)
            return hindsight.pair_weights(t, counts) / batch.action.shape[0]

        def loss(params: Params, seen: tuple[Array, Array, Array], weights: Array) -> Array:
            return pair_loss(logits(params, seen), seen[2], weights)

        seen, own = jax.vmap(inputs)(batch, found), jax.vmap(weights)(batch, found)
        return distinct_fit_step(optimizer, loss, state["net"], seen, own, separable)

    @one_at_a_time
    def fit_successors(state: Any, batch: Trajectory, found: Outcomes) -> tuple[Any, Array]:
        def loss(params: Params) -> Array:
            def one(t: Trajectory, outcome: Outcomes) -> Array:
                x, level = logits(params, inputs(t, outcome)), mlp(params["level"], t.obs[:-1])
                return successor_loss(x, level, t, outcome.member, config.trace)

            return batch_mean(one, batch, found)

        return fit_step(optimizer, loss, state["net"])

    def update(state: Any, batch: Trajectory, policy: Any, key: PRNGKeyArray):
        if every_pair:
            net, value = fit_every_pair(state, batch)
            used, missed = hindsight.counting_steps(batch, config.mask_zero_reward), jnp.int32(0)
        else:
            found = jax.vmap(lambda t: outcomes(state, t))(batch)
            net, value = (fit_successors if counts_successors else fit)(state, batch, found)
            used = jnp.any(found.member > 0, axis=1)
            missed = jnp.sum(jax.vmap(hindsight.unmatched)(batch, found))
        state = {**state, "net": net}
        if with_reward_model:
            share = 0.5 * jax.vmap(alive_share)(batch)[..., None] * batch.taken
            state["reward"], _ = _regression_step(
                reward_optimizer, state["reward"], batch, share, batch.reward
            )
        counts = {"unmatched_rewards": missed, "outcomes": jnp.mean(jnp.sum(used, axis=-1))}
        return state, {**_metrics(value), **counts}

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        params = state["net"][0]
        if every_pair:
            summed = contributions_of_pairs(ratio, params, trajectory)
        else:
            outcome = outcomes(state, trajectory)
            w = evaluate_distinct(coefficients, separable)(params, inputs(trajectory, outcome))
            summed = estimators.contributions(trajectory, w, outcome.member)
        rewards = None
        if with_reward_model:
            rewards = evaluate_distinct(mlp)(state["reward"][0], trajectory.obs[:-1])
        return contribution_table(trajectory, summed, key, config.action_samples, rewards)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        obs, log_policy = jnp.asarray(mdp.observations), jnp.log(policy)
        S, A = policy.shape
        if config.method == "cocoa_reward":
            encoding = exact.reward_encoding(mdp)
            kinds = jnp.asarray(mdp.reward_values)
            listed = jnp.asarray(
                values if config.mask_zero_reward else spec.reward_values, obs.dtype
            )
            vectors = (jnp.abs(kinds[:, None] - listed[None]) < 1e-4).astype(obs.dtype)
        elif config.method == "cocoa_feature":
            pairs = bits(state, jnp.repeat(obs, A, axis=0), jnp.tile(jnp.arange(A), S))
            index = jnp.arange(S * A, dtype=jnp.int32).reshape(S, A, 1)
            encoding = exact.Encoding(
                index=jnp.broadcast_to(index, mdp.reward_probs.shape), size=S * A
            )
            vectors = pairs
        else:
            encoding, vectors = exact.state_encoding(mdp), obs

        x = hindsight.hypernetwork_of_states(state["net"][0], obs, vectors, log_policy)
        w = jnp.swapaxes(ratio(x, log_policy), 1, 2) - 1.0
        if not with_reward_model:
            return exact.advantage_contribution(mdp, policy, encoding, w)
        return exact.advantage_hca(mdp, policy, w, mlp(state["reward"][0], obs))

    return CreditModel(init, update, table, expected)


def return_model(config: CreditConfig, spec: WorldSpec) -> CreditModel:
    """HCA-return and counterfactual return: h(a | s, Z), one training pair per step."""
    optimizer = adamw(config.model_rate, clip=config.hindsight_clip)
    counterfactual = config.method == "counterfactual_return"

    def inputs(trajectory: Trajectory) -> tuple[Array, Array, Array]:
        z = estimators.returns_to_go(trajectory)[:, None, None]
        return trajectory.obs[:-1], z, trajectory.log_policy

    def logits(params: Params, seen: tuple[Array, Array, Array]) -> Array:
        return hindsight.hypernetwork(params, *seen)

    def ratios(params: Params, seen: tuple[Array, Array, Array]) -> Array:
        return hindsight.classification_ratio(logits(params, seen), seen[2])

    def init_params(key: PRNGKeyArray) -> Params:
        return hindsight.hypernetwork_init(
            key, spec.obs_dim, 1, spec.num_actions, config.hindsight_width
        )

    def update(state: Any, batch: Trajectory, policy: Any, key: PRNGKeyArray):
        # Returns hardly ever agree, so little is shared, but one episode at a time stays in the cache.
        def weights(trajectory: Trajectory) -> Array:
            pairs = hindsight.pair_weights(trajectory, trajectory.alive[:, None])
            return pairs / batch.action.shape[0]

        def loss(params: Params, seen: tuple[Array, Array, Array], weights: Array) -> Array:
            return hindsight.classification_loss(logits(params, seen), seen[2], weights)

        seen, own = jax.vmap(inputs)(batch), jax.vmap(weights)(batch)
        state, found = distinct_fit_step(optimizer, loss, state, seen, own)
        return state, _metrics(found)

    def table(state: Any, trajectory: Trajectory, key: PRNGKeyArray) -> Array:
        ratio = evaluate_distinct(ratios)(state[0], inputs(trajectory))[:, 0]
        function = estimators.counterfactual_return if counterfactual else estimators.hca_return
        return function(trajectory, ratio)

    def expected(state: Any, mdp: FiniteMDP, policy: Array) -> Array:
        support, units = exact.return_support(mdp)
        z = jnp.asarray(support, policy.dtype)
        returns = exact.return_distribution(mdp, policy, support, units)

        obs, log_policy = jnp.asarray(mdp.observations), jnp.log(policy)
        x = hindsight.hypernetwork_of_states(state[0], obs, z[:, None], log_policy)
        ratio = jnp.swapaxes(hindsight.classification_ratio(x, log_policy), 1, 2)
        if counterfactual:
            return exact.advantage_counterfactual_return(returns, policy, z, ratio)
        return exact.advantage_hca_return(returns, z, 1.0 / ratio)

    return CreditModel(_initialiser(init_params, optimizer), update, table, expected)


def _regression_step(
    optimizer: Any,
    state: Any,
    batch: Trajectory,
    share: Float[Array, "B T A"],
    targets: Float[Array, "B T"],
) -> tuple[Any, Array]:
    """One gradient step of an MLP on Σ share (MLP(S_t)[a] − target_t)², averaged over the batch.

    Where the sums of share, share × target and share × target² are the same, so is this loss.
    """
    share, targets = share / batch.action.shape[0], targets[..., None]

    def loss(params: Params, obs: Array, moments: tuple[Array, Array, Array]) -> Array:
        # Of episodes with equal observations: the error to the mean target, and the targets' spread.
        y, (weight, first, second) = mlp(params, obs), moments
        mean = jnp.where(weight > 0, first / jnp.where(weight > 0, weight, 1.0), 0.0)
        spread = jnp.maximum(second - first * mean, 0.0)
        return jnp.sum(weight * jnp.square(y - mean) + spread)

    moments = share, share * targets, share * jnp.square(targets)
    return distinct_fit_step(optimizer, loss, state, batch.obs[:, :-1], moments)


def _initialiser(init_params: Any, optimizer: Any) -> Any:
    def init(key: PRNGKeyArray) -> Any:
        params = init_params(key)
        return params, optimizer.init(params)

    return init


def _metrics(loss: Array | float = 0.0) -> dict[str, Array]:
    return {
        "model_loss": jnp.asarray(loss, jnp.float32),
        "outcomes": jnp.float32(0.0),
        **zero_counts("unmatched_rewards"),
    }
