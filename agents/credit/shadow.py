"""Shadow training: many estimators learn from the same episodes, and only the main one acts.

All are then measured on the same trajectories of the same policy (COCOA, arXiv 2306.16803,
section 4.2 and appendix).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from agents.credit.model import IGNORED, CreditModel
from agents.credit.policy import Policy
from agents.credit.quality import gradient_quality
from agents.credit.train import MEASUREMENT, TrainConfig, TrainState, World
from agents.credit.trajectory import LogPolicy, Trajectory, rollouts
from envs.credit.mdp import FiniteMDP, check_horizon


def parallel_model(
    models: Mapping[str, CreditModel], main: str, idle: Collection[str] = ()
) -> CreditModel:
    """All models as one, whose state is a dictionary; tables, bias and metrics are those of `main`, with
    the counts of what the others had to ignore as `count/NAME`.

    Args:
        idle: exact models that are only measured: they have no memory, so `make_measure`, which updates
            all of them first, is where they need to know the policy.

    Raises:
        ValueError: there is no model called `main`.
    """
    if main not in models or main in idle:
        allowed = ", ".join(name for name in models if name not in idle)
        raise ValueError(f"main is {main!r}; allowed: {allowed}")

    def init(key: PRNGKeyArray) -> dict[str, Any]:
        keys = jax.random.split(key, len(models))
        return {name: model.init(k) for (name, model), k in zip(models.items(), keys, strict=True)}

    def update(state: Any, batch: Trajectory, policy: LogPolicy, key: PRNGKeyArray):
        keys = jax.random.split(key, len(models))
        found, metrics, ignored = dict(state), {}, {}
        for (name, model), k in zip(models.items(), keys, strict=True):
            if name in idle:
                continue
            found[name], own = model.update(state[name], batch, policy, k)
            if name == main:
                metrics = own
            else:
                ignored |= _counts(name, own)
        return found, metrics | ignored

    return CreditModel(
        init=init,
        update=update,
        table=lambda state, trajectory, key: models[main].table(state[main], trajectory, key),
        expected_advantage=lambda state, mdp, policy: models[main].expected_advantage(
            state[main], mdp, policy
        ),
    )


def make_measure(
    config: TrainConfig,
    world: World,
    policy: Policy,
    models: Mapping[str, CreditModel],
    mdp: FiniteMDP,
    first_state_only: bool,
    idle: Collection[str] = (),
) -> Callable[[TrainState], dict[str, Array]]:
    """state -> gradient metrics of every model, as `metric/model`.

    Before it, all models get one more update on a fresh batch, which is thrown away: model and
    policy are then in step.

    Args:
        idle: those of `parallel_model`; what they had to ignore is counted here.

    Raises:
        ValueError: the world cuts episodes that the tables count to their end, or its rewards switch,
            which the tables know nothing of.
    """
    check_horizon(mdp, world.horizon)
    if world.params_after is not None and config.switch_at > 0:
        raise ValueError(
            f"train.switch_at is {config.switch_at}; allowed: 0, since gradients are measured "
            "against the tables of one world"
        )

    def measure(state: TrainState) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, MEASUREMENT), state.step)
        batch_key, update_key, measure_key, table_key = jax.random.split(key, 4)
        params = state.policy[0]
        acting = policy.acting(params, config.epsilon)
        batch, _ = rollouts(
            world.env, world.params, acting, batch_key, world.horizon, config.batch_size
        )
        many, info = rollouts(
            world.env, world.params, acting, measure_key, world.horizon, config.eval_episodes
        )
        metrics = {f"measured_{name}": jnp.mean(value) for name, value in info.items()}
        for name, model in models.items():
            credit, own = model.update(state.credit[name], batch, acting, update_key)
            if name in idle:
                metrics |= _counts(name, own)
            found = gradient_quality(
                policy,
                params,
                config.epsilon,
                model,
                credit,
                many,
                mdp,
                table_key,
                first_state_only,
            )
            metrics |= {f"{metric}/{name}": value for metric, value in found.items()}
        return metrics

    return measure


def _counts(name: str, metrics: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{count}/{name}": metrics[count] for count in IGNORED if count in metrics}
