"""Bias, variance and SNR of exact estimators at one policy, and tables of a world, as reports."""

import dataclasses
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from agents.credit import METHODS
from agents.credit.config import CreditConfig
from agents.credit.exact_models import exact_model
from agents.credit.model import CreditModel
from agents.credit.policy import mlp_policy, tabular_policy
from agents.credit.quality import flat_gradients, ratios
from agents.credit.train import tables_of
from agents.credit.trajectory import Trajectory, from_paths, rollouts
from envs.credit import FiniteMDP, Tree, exact
from envs.credit.enumeration import enumerate_paths
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.world import BuiltWorld, build_world, check_lattice, tables, validate
from internal_rl.errors import UserError


def variance_report(
    config: CreditRunConfig,
    methods: Sequence[str],
    groups: Sequence[int] = (),
    *,
    uniform: bool = True,
) -> dict[str, Any]:
    """Gradient metrics of exact estimators at the uniform tabular policy, or at an untrained network.

    In a world with few trajectories all are enumerated in float64, so the numbers are exact;
    elsewhere `train.eval_episodes` are sampled.

    Args:
        methods: estimators, with exact models.
        groups: for the tree, numbers of sub-classes of each reward.
    """
    validate(config)
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        raise UserError(f"methods has {unknown[0]!r}; allowed: {', '.join(METHODS)}")
    built = build_world(config.world)
    if groups and config.world.kind != "tree":
        raise UserError(f"groups is {list(groups)}; allowed: none outside the tree")
    if any(g < 1 for g in groups):
        raise UserError(f"groups is {list(groups)}; allowed: 1 or more each")
    mdp = tables(built)
    check_lattice("methods", methods, mdp)
    with jax.enable_x64(True):
        return _variance(config, built, mdp, methods, groups, uniform)


def _variance(
    config: CreditRunConfig,
    built: BuiltWorld,
    mdp: FiniteMDP,
    methods: Sequence[str],
    groups: Sequence[int],
    uniform: bool,
) -> dict[str, Any]:
    key = jax.random.key(config.seed)
    epsilon = config.train.epsilon
    spec = built.spec
    if uniform:
        policy = tabular_policy(mdp)
    else:
        policy = mlp_policy(spec.obs_dim, spec.num_actions, config.train.policy_width)
    params = policy.init(key)
    table = lambda params: jnp.exp(  # noqa: E731
        policy.acting(params, epsilon)(jnp.asarray(mdp.observations))
    )
    pi = table(params)
    try:
        paths = enumerate_paths(mdp)
        batch, weight = from_paths(mdp, paths, pi), paths.probability(pi)
    except ValueError:
        weight = None
        acting = policy.acting(params, epsilon)
        world, count = built.world, config.train.eval_episodes
        sample = jax.jit(
            lambda key: rollouts(world.env, world.params, acting, key, world.horizon, count)[0]
        )
        batch = sample(key)
        batch = jax.tree.map(
            lambda x: x.astype(pi.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, batch
        )
    values = exact.values(mdp, pi)
    first = config.train.first_state_only
    gradient = lambda advantage: jnp.concatenate(  # noqa: E731
        [
            leaf.reshape(-1)
            for leaf in jax.tree.leaves(
                exact.expected_gradient(mdp, table, params, advantage, first)
            )
        ]
    )
    truth = jax.jit(lambda q, v: gradient(q - v[:, None]))(values.q, values.v)

    @partial(jax.jit, static_argnums=0)
    def quality(model: CreditModel, batch: Trajectory) -> dict[str, jax.Array]:
        credit, _ = model.update(model.init(key), batch, policy.acting(params, epsilon), key)
        single = flat_gradients(
            policy, params, epsilon, batch, tables_of(model, credit, batch, key), first
        )
        expected = gradient(model.expected_advantage(credit, mdp, pi))
        return ratios(truth, expected, single, weight)

    report: dict[str, Any] = {}
    for name, model in _models(config, built, mdp, methods, groups).items():
        report[name] = {k: _plain(v) for k, v in quality(model, batch).items()}
    return {
        "world": config.world.kind,
        "trajectories": int(batch.action.shape[0]),
        "enumerated": weight is not None,
        "states": mdp.num_states,
        "policy": "uniform" if uniform else "untrained network",
        "first_state_only": first,
        "estimators": report,
    }


def exact_report(config: CreditRunConfig) -> dict[str, Any]:
    """Size and value of a world under the uniform policy, seconds to build, and how far from the
    exact gradient every estimator with its exact model is on average: None where that has no meaning,
    for a gradient of zero or a method that has no exact model here."""
    validate(config)
    built = build_world(config.world)
    started = time.perf_counter()
    mdp = tables(built)
    enumerated = time.perf_counter() - started
    with jax.enable_x64(True):
        policy = tabular_policy(mdp)
        logits = policy.init(jax.random.key(0))
        softmax = lambda x: jax.nn.softmax(x, axis=-1)  # noqa: E731
        pi = softmax(logits)
        started = time.perf_counter()
        values = jax.block_until_ready(exact.values(mdp, pi))
        counts = exact.outcome_counts(mdp, pi, exact.state_encoding(mdp))
        jax.block_until_ready(exact.contribution_ratio(counts, pi))
        computed = time.perf_counter() - started
        gradient = jax.jit(
            lambda advantage: exact.expected_gradient(mdp, softmax, logits, advantage)
        )
        truth = gradient(values.q)
        norm = jnp.linalg.norm(truth)

        @partial(jax.jit, static_argnums=0)
        def expected_advantage(model: CreditModel) -> jax.Array:
            # Exact models take nothing from the batch but its policy.
            credit, _ = model.update(
                model.init(jax.random.key(config.seed)),
                None,  # pyright: ignore[reportArgumentType]
                policy.acting(logits, 0.0),
                jax.random.key(0),
            )
            return model.expected_advantage(credit, mdp, pi)

        bias: dict[str, float | None] = {}
        for method in METHODS:
            try:
                model = _models(config, built, mdp, (method,), ())[method]
            except ValueError:  # no lattice of returns, which two of the methods need
                bias[method] = None
                continue
            found = gradient(expected_advantage(model))
            bias[method] = _plain(jnp.linalg.norm(found - truth) / norm)
        start_value = float(jnp.asarray(mdp.start) @ values.v)
    return {
        "world": config.world.kind,
        "states": mdp.num_states,
        "actions": mdp.num_actions,
        "horizon": mdp.horizon,
        "reward_values": [float(v) for v in mdp.reward_values],
        "value_of_uniform_policy": start_value,
        "gradient_norm": float(norm),
        "relative_bias": bias,
        "seconds": {"enumerate": enumerated, "values_and_state_coefficients": computed},
    }


def _models(
    config: CreditRunConfig,
    built: BuiltWorld,
    mdp: FiniteMDP,
    methods: Sequence[str],
    groups: Sequence[int],
) -> dict[str, CreditModel]:
    credit = CreditConfig(model="exact", perturbation=config.credit.perturbation)
    models: dict[str, CreditModel] = {}
    for method in methods:
        any_method: Any = method
        chosen = dataclasses.replace(credit, method=any_method)
        models[method] = exact_model(chosen, built.spec, mdp)
    env = built.world.env
    for count in groups:
        assert isinstance(env, Tree)
        encoding = exact.table_encoding(mdp, env.grouping(mdp, count))
        models[f"groups_{count}"] = exact_model(credit, built.spec, mdp, encoding)
    return models


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
