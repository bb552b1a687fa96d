"""Learned contribution coefficients of a run beside the exact ones, state by state and outcome by outcome."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.credit import CreditConfig
from agents.credit.config import HINDSIGHT_METHODS
from agents.credit.features import features
from agents.credit.hindsight import classification_ratio, contrastive_ratio, hypernetwork_of_states
from agents.credit.train import TrainState
from envs.credit import FiniteMDP, enumerate_mdp, exact
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.run import SHADOW, TRAIN, build_policy, last_state
from internal_rl.credit.world import BuiltWorld, build_world, shadow_credits, tables
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir


@dataclass(frozen=True)
class _Outcomes:
    """What the network of a method is asked about in an MDP.

    Attributes:
        vectors: float[K, E], what it sees.
        encoding: of steps that pay, as 0..K-1; K stands for all others that no reward is credited through.
        pays: bool[K], whether the outcome ever pays.
    """

    vectors: np.ndarray
    encoding: exact.Encoding
    pays: np.ndarray


def inspect_run(run: RunDir, method: str = "") -> dict[str, Any]:
    """Learned and exact coefficients of every seed of a run, at its newest checkpoint and under its acting policy.

    Numbers of a seed: `size` and `error` are the means of Σ_a π |w| (exact) and Σ_a π |ŵ − w| over pairs of a decision
    and a later rewarded step, as often as they occur; `silent` is the share of `size` that lies in pairs for which all
    rectified outputs of the hindsight network are off: it then says ŵ = 0, and no gradient can change that. In worlds
    with one first state, `first_decision` lists its outcomes: mean reward, how often they follow, coefficients of every
    action.

    Args:
        run: of `credit train` or `credit shadow`, with a method that learns coefficients.
        method: which of a shadow run's estimators; of a training run only its own.

    Raises:
        UserError: there are no such coefficients, or the world has no exact tables.
    """
    if run.stage not in (TRAIN, SHADOW):
        raise UserError(
            f"{run.path} is a run of {run.info['stage']!r}; allowed: {TRAIN!r}, {SHADOW!r}"
        )
    config, shadow = run.load_config(CreditRunConfig), run.stage == SHADOW
    credit = _credit_of(config, shadow, method)
    built, states = build_world(config.world), last_state(run)
    seeds = []
    for i in range(run.info["num_seeds"]):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        after = 0 < config.train.switch_at <= int(state.step)
        own = state.credit[credit.method] if shadow else state.credit
        seeds.append(_inspect(config, credit, built, _tables(built, after), state, own))
    return {"method": credit.method, "step": int(states.step[0]), "seeds": seeds}


def _credit_of(config: CreditRunConfig, shadow: bool, method: str) -> CreditConfig:
    found = shadow_credits(config) if shadow else {config.credit.method: config.credit}
    allowed = [
        name
        for name, one in found.items()
        if name in HINDSIGHT_METHODS
        and one.model == "learned"
        and one.hindsight_loss != "successor"
    ]
    chosen = method or (allowed[0] if len(allowed) == 1 else "")
    if chosen not in allowed:
        names = ", ".join(allowed) or "none, the run learns no hindsight network"
        raise UserError(f"method is {method!r}; allowed for this run: {names}")
    return found[chosen]


def _tables(built: BuiltWorld, after: bool) -> FiniteMDP:
    if not after:
        return tables(built)
    return enumerate_mdp(built.world.env, built.world.params_after)


def _inspect(
    config: CreditRunConfig,
    credit: CreditConfig,
    built: BuiltWorld,
    mdp: FiniteMDP,
    state: TrainState,
    own: Any,
) -> dict[str, Any]:
    obs = jnp.asarray(mdp.observations, jnp.float32)
    log_policy = build_policy(config, built).acting(state.policy[0], config.train.epsilon)(obs)
    found = _outcomes(credit, built, mdp, own)
    x = jax.jit(partial(hypernetwork_of_states, leak=credit.hindsight_leak))(
        own["net"][0], obs, jnp.asarray(found.vectors), log_policy
    )
    if credit.hindsight_loss == "contrastive":
        ratio = contrastive_ratio(x, log_policy, credit.clip_ratio)
    else:
        ratio = classification_ratio(x, log_policy)
    learned, silent = np.asarray(ratio, float) - 1.0, np.asarray(jnp.all(x == 0.0, axis=-1))

    pi = np.exp(np.asarray(log_policy, float))
    pi /= pi.sum(axis=1, keepdims=True)
    kept = len(found.pays)
    with jax.enable_x64(True):
        table = jnp.asarray(pi)
        counts = exact.outcome_counts(mdp, table, found.encoding)
        w = np.asarray(exact.contribution_ratio(counts, table)).swapaxes(1, 2)[:, :kept] - 1.0
        paid = np.asarray(exact.outcome_rewards(mdp, table, found.encoding))
        visits = np.asarray(exact.state_distributions(mdp, table))
    times = np.einsum("sa,sak->sk", pi, np.asarray(counts))[:, :kept] * found.pays
    paid = np.einsum("sa,sak->sk", pi, paid)[:, :kept]

    share = visits[:, None] * times
    size, error = (np.einsum("sa,ska->sk", pi, np.abs(v)) for v in (w, learned - w))
    report: dict[str, Any] = {
        "size": _mean(size, share),
        "error": _mean(error, share),
        "silent": _mean(silent, share * size),
    }
    starts = np.flatnonzero(mdp.start)
    if len(starts) > 1:
        return report
    start = int(starts[0])
    outcomes = [
        {
            "reward": paid[start, k] / times[start, k],
            "times": times[start, k],
            "exact": w[start, k].tolist(),
            "learned": learned[start, k].tolist(),
            "silent": bool(silent[start, k]),
        }
        for k in np.flatnonzero(times[start])
    ]
    return {**report, "first_policy": pi[start].tolist(), "first_decision": outcomes}


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    """None where nothing has a weight."""
    total = weights.sum()
    return float((values * weights).sum() / total) if total > 0 else None


def _outcomes(credit: CreditConfig, built: BuiltWorld, mdp: FiniteMDP, own: Any) -> _Outcomes:
    values = np.asarray(mdp.reward_values)
    S, A, R = np.asarray(mdp.reward_probs).shape
    if credit.method == "cocoa_reward":
        listed = [v for v in built.spec.reward_values if v != 0.0 or not credit.mask_zero_reward]
        vectors = np.eye(len(listed), dtype=np.float32)
        index = np.abs(values[:, None] - np.array(listed)[None]).argmin(axis=1)
    elif credit.method == "cocoa_feature":
        c = credit.features
        obs = jnp.repeat(jnp.asarray(mdp.observations, jnp.float32), A, axis=0)
        bits = features(own["features"], obs, jnp.tile(jnp.arange(A), S), c.threshold, c.binary)
        vectors, codes = np.unique(np.asarray(bits > 0, np.float32), axis=0, return_inverse=True)
        index = codes.reshape(S, A, 1)
    else:
        vectors = np.asarray(mdp.observations, np.float32)
        index = np.arange(S)[:, None, None]
    kept = len(vectors)
    if credit.mask_zero_reward:  # steps without reward are no example of their outcome
        index = np.where(values != 0.0, index, kept)
    index = np.broadcast_to(index, (S, A, R)).astype(np.int32)
    pays = np.zeros(kept + 1, bool)
    pays[index[(np.asarray(mdp.reward_probs) > 0) & (values != 0.0)]] = True
    return _Outcomes(vectors, exact.Encoding(index=index, size=kept + 1), pays[:kept])
