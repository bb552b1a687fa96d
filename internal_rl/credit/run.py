"""Credit-assignment runs: directories in, directories out."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.credit import CreditConfig, make_model
from agents.credit.features import distinct_transitions, features_init, train_features
from agents.credit.model import CreditModel
from agents.credit.policy import Policy, mlp_policy
from agents.credit.shadow import make_measure, parallel_model
from agents.credit.train import (
    FEATURE_DATA,
    FEATURE_TRAINING,
    TrainState,
    make_evaluate,
    make_init,
    make_update,
)
from agents.credit.trajectory import rollouts
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.world import (
    BuiltWorld,
    build_world,
    learns_features,
    shadow_credits,
    shadow_features,
    tables,
    validate,
    validate_shadow,
)
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.run_dir import RunDir
from internal_rl.runs.seeds import seed_mesh, split
from internal_rl.runs.train import Job, Program, shapes, train

TRAIN, SHADOW = "credit-train", "credit-shadow"
"""Stages of runs; each credit model of a shadow run has a part of the state of its own."""


def run_train(config: CreditRunConfig, path: Path, **flags: Any) -> RunDir:
    """Train one estimator; evaluation of `train.eval_episodes` episodes at every log line. Flags: `runs.train.train`."""
    return train(Job(TRAIN, config, _train_program, validate), path, **flags)


def run_shadow(config: CreditRunConfig, path: Path, **flags: Any) -> RunDir:
    """Measure many estimators along the training of `config.credit`, which alone acts. Flags: `runs.train.train`."""

    def check(config: CreditRunConfig) -> None:
        validate(config)
        validate_shadow(config)

    return train(Job(SHADOW, config, _shadow_program, check), path, **flags)


def _train_program(config: CreditRunConfig, run: RunDir, seeds: int) -> Program:
    built = build_world(config.world)
    model, policy = build_model(config.credit, built), build_policy(config, built)
    learns = learns_features(config.credit)

    def with_features(state: TrainState) -> TrainState:
        found = trained_features(config, built, policy, state, seeds)
        return state.replace(credit={**state.credit, "features": found})  # pyright: ignore[reportAttributeAccessIssue]

    evaluate = make_evaluate(config.train, built.world, policy)
    burn_in = config.credit.features.burn_in if learns else 0
    rate = config.credit.policy_rate
    return Program(
        title=f"credit {config.credit.method}",
        init=make_init(config.train, policy, model, rate),
        update=make_update(config.train, built.world, policy, model, rate, burn_in=burn_in),
        total_steps=config.train.batches,
        headline="return",
        prepare=with_features if learns else None,
        extra_metrics=_of_seeds(config, evaluate, jax.vmap(evaluate), seeds),
        check=_check(config, built),
    )


def _shadow_program(config: CreditRunConfig, run: RunDir, seeds: int) -> Program:
    built = build_world(config.world)
    mdp = tables(built).astype(jnp.float32)
    models = shadow_models(config, built)
    policy = build_policy(config, built)
    idle = [name for name in models if name.startswith("exact_")]
    together = parallel_model(models, "main", idle)
    featured = shadow_features(config)

    def with_features(state: TrainState) -> TrainState:
        found = trained_features(config, built, policy, state, seeds)
        trained = {name: {**state.credit[name], "features": found} for name in featured}
        return state.replace(credit={**state.credit, **trained})  # pyright: ignore[reportAttributeAccessIssue]

    measure = make_measure(
        config.train, built.world, policy, models, mdp, config.shadow.first_state_only, idle
    )
    burn_in = config.credit.features.burn_in if featured else 0
    rate = config.credit.policy_rate
    return Program(
        title="credit shadow",
        init=make_init(config.train, policy, together, rate),
        update=make_update(config.train, built.world, policy, together, rate, burn_in=burn_in),
        total_steps=config.train.batches,
        headline="return",
        prepare=with_features if featured else None,
        # Seed by seed: the gradients of many trajectories and estimators need much memory.
        extra_metrics=_of_seeds(config, measure, lambda state: jax.lax.map(measure, state), seeds),
        check=_check(config, built),
    )


def shadow_models(config: CreditRunConfig, built: BuiltWorld) -> dict[str, CreditModel]:
    """Models by name: `main`, the learned ones by method, the exact ones as `exact_METHOD`, or as
    `exact_METHOD@PERTURBATION` where that is not 0."""
    models = {"main": build_model(config.credit, built)}
    for name, credit in shadow_credits(config).items():
        models[name] = build_model(credit, built)
    for name in config.shadow.exact_methods:
        for size in config.shadow.perturbations:
            exact = CreditConfig(method=name, model="exact", perturbation=size)  # pyright: ignore[reportArgumentType]
            models[f"exact_{name}" + (f"@{size:g}" if size else "")] = build_model(exact, built)
    return models


def last_state(run: RunDir) -> TrainState:
    """The newest saved state of a run; leaves have the seed axis also for one seed."""
    config = run.load_config(CreditRunConfig)
    seeds = run.info["num_seeds"]
    built = build_world(config.world)
    if run.stage == SHADOW:
        model = parallel_model(shadow_models(config, built), "main")
    else:
        model = build_model(config.credit, built)
    policy = build_policy(config, built)
    init = make_init(config.train, policy, model, config.credit.policy_rate)
    template = shapes(init, config.seed, seeds)
    state = Checkpoints(run).restore_latest(template)[1]
    return state if seeds > 1 else jax.tree.map(lambda x: x[None], state)


def build_model(credit: CreditConfig, built: BuiltWorld) -> CreditModel:
    """The credit model of a config in a world; exact ones work in float32 while training."""
    mdp = tables(built).astype(jnp.float32) if credit.model == "exact" else None
    # A placeholder of the right shape: the features are trained on each seed's own data.
    blank = features_init(
        jax.random.key(0),
        credit.features.backbone,
        built.spec.obs_dim,
        built.spec.num_actions,
        credit.features.width,
    )
    return make_model(credit, built.spec, mdp, blank)


def build_policy(config: CreditRunConfig, built: BuiltWorld) -> Policy:
    """The policy network of a config."""
    spec = built.spec
    return mlp_policy(spec.obs_dim, spec.num_actions, config.train.policy_width)


def _of_seeds(config: CreditRunConfig, one: Callable, many: Callable, seeds: int) -> Callable:
    """Jitted `one` for a single seed; for several `many`, over the devices that hold them."""
    return jax.jit(split(many, seed_mesh(config.runtime, seeds)) if seeds > 1 else one)


def _check(config: CreditRunConfig, built: BuiltWorld) -> Callable[[Mapping[str, Any]], str | None]:
    """What is wrong with a metrics line: numbers that are not finite, rewards without an outcome."""
    with_features = shadow_features(config)

    def check(metrics: Mapping[str, Any]) -> str | None:
        for name, value in metrics.items():
            kind, _, model = name.partition("/")
            if kind == "unmatched_rewards" and np.any(np.asarray(value) > 0):
                if (model or "main") in with_features:
                    warnings.warn(
                        "credit.features.max_outcomes is "
                        f"{config.credit.features.max_outcomes}, and episodes had more distinct "
                        f"outcomes: {np.max(value):g} rewards since the last line were credited to "
                        f"nobody ({name})",
                        stacklevel=2,
                    )
                    continue
                listed = ", ".join(f"{v:g}" for v in built.spec.reward_values)
                return (
                    f"{name} is {np.max(value):g}; allowed: 0. The world pays a reward that is not in "
                    f"its list of possible ones ({listed}), which is credited to nobody"
                )
            if kind == "unknown_states" and np.any(np.asarray(value) > 0):
                return (
                    f"{name} is {np.max(value):g}; allowed: 0. The world shows observations that no "
                    "state of its exact tables has"
                )
            # Decibels against the exact gradient are infinite where there is no bias or variance.
            if not model and not np.isfinite(value).all():
                return f"{name} is not finite; lower the learning rates"
        return None

    return check


def trained_features(
    config: CreditRunConfig, built: BuiltWorld, policy: Policy, state: TrainState, seeds: int
) -> Any:
    """Parameters of COCOA-feature's frozen network: data of the untrained policy, one network per seed."""
    c = config.credit.features
    params = state.policy[0] if seeds > 1 else jax.tree.map(lambda x: x[None], state.policy[0])
    keys = state.key if seeds > 1 else state.key[None]
    raw = [
        _collect(config, built, policy, jax.tree.map(lambda x, i=i: x[i], params), keys[i])
        for i in range(seeds)
    ]
    size = max(len(distinct_transitions(*item)["reward"]) for item in raw)
    padded = [distinct_transitions(*item, size) for item in raw]
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *padded)
    learn = jax.jit(
        jax.vmap(
            lambda key, data: train_features(
                jax.random.fold_in(key, FEATURE_TRAINING),
                data,
                backbone=c.backbone,
                width=c.width,
                threshold=c.threshold,
                binary=c.binary,
                steps=c.steps,
                learning_rate=c.learning_rate,
                shrink_backbone=c.shrink_backbone,
                shrink_readout=c.shrink_readout,
                actions=built.spec.num_actions,
            )
        )
    )
    found, _ = learn(keys, stacked)
    return jax.tree.map(lambda x: x[0], found) if seeds == 1 else found


def _collect(
    config: CreditRunConfig, built: BuiltWorld, policy: Policy, params: Any, key: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations [N, D], actions [N] and rewards [N] of the burn-in's episodes."""
    train, features, world = config.train, config.credit.features, built.world
    count = train.batch_size * (features.burn_in + 1)
    acting = policy.acting(params, train.epsilon)
    sample = jax.jit(
        lambda key: rollouts(world.env, world.params, acting, key, world.horizon, count)[0]
    )
    batch = jax.device_get(sample(jax.random.fold_in(key, FEATURE_DATA)))
    keep = ~batch.done[:, :-1] | features.after_end
    return batch.obs[:, :-1][keep], batch.action[keep], batch.reward[keep]
