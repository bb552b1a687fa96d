"""Learned contribution coefficients of a run beside the exact ones, state by state and outcome by outcome."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.credit import CreditConfig
from agents.credit.config import HINDSIGHT_METHODS
from agents.credit.features import features
from agents.credit.hindsight import hypernetwork_of_states, learned_ratio
from agents.credit.networks import mlp
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
        names: K of them: the reward, the observation (HCA, HCA+) or the indices of the active features.
        vectors: float[K, E], what the network sees.
        encoding: of the steps that are its examples, as 0..K-1, and of all others as K.
        paid: the same for steps with a reward alone.
    """

    names: list[Any]
    vectors: np.ndarray
    encoding: exact.Encoding
    paid: exact.Encoding


def inspect_run(run: RunDir, method: str = "") -> dict[str, Any]:
    """Learned and exact coefficients of every seed of a run, at its newest checkpoint and under its acting policy.

    Numbers of a seed, over pairs of a decision and a later step with a reward, as often as they occur: `size`, the mean
    of Σ_a π |w| with exact coefficients; `error`, the mean of Σ_a π |ŵ − w|; `silent`, the share of `size` in pairs of
    state and outcome for which all rectified outputs of the hindsight network are off, so that ŵ = 0 and the pair's own
    gradient is 0 (others, which share its weights, may switch it on again).

    Over decisions, as often as they occur: `advantage`, the mean of Σ_a π |A|; `outcome_error` and `learned_error`, that
    of Σ_a π |Â − A| for the advantage Â that the run's outcomes give on average, with exact coefficients and with
    learned ones (and immediate rewards, which original HCA learns): the first is what merged outcomes cost, the second
    what the policy sees;
    `misled`, the share of `advantage` in decisions whose best action has no positive learned advantage.

    In worlds with one first state `first_policy` is π there, and `first_decision` lists its outcomes: name, mean reward,
    expected number of times, exact and learned coefficient of each action in their order, silent or not.

    `credit.features.max_outcomes`, beyond which an episode's outcomes are not credited, is not taken into account.

    Args:
        run: of `credit train` or `credit shadow`, with a method that learns coefficients.
        method: which of a shadow run's estimators, "main" for the acting one; of a training run only its own.

    Raises:
        UserError: there are no such coefficients, or the world has no exact tables.
    """
    if run.stage not in (TRAIN, SHADOW):
        raise UserError(f"{run.path} is a run of {run.stage!r}; allowed: {TRAIN!r}, {SHADOW!r}")
    config, shadow = run.load_config(CreditRunConfig), run.stage == SHADOW
    name, credit = _chosen(config, shadow, method)
    built, states = build_world(config.world), last_state(run)
    step = int(states.step[0])
    after = 0 < config.train.switch_at <= step
    mdp = enumerate_mdp(built.world.env, built.world.params_after) if after else tables(built)
    seeds = []
    for i in range(run.info["num_seeds"]):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        own = state.credit[name] if shadow else state.credit
        seeds.append(_inspect(config, credit, built, mdp, state, own))
    return {"method": credit.method, "step": step, "seeds": seeds}


def _chosen(config: CreditRunConfig, shadow: bool, method: str) -> tuple[str, CreditConfig]:
    found = {"main" if shadow else config.credit.method: config.credit}
    if shadow:
        found |= shadow_credits(config)
    allowed = {
        name: credit
        for name, credit in found.items()
        if credit.method in HINDSIGHT_METHODS and credit.model == "learned"
    }
    name = method or (next(iter(allowed)) if len(allowed) == 1 else "")
    if name not in allowed:
        given = f"method is {method!r}" if method else "method is not set"
        listed = ", ".join(allowed) or "none, no hindsight network is learned"
        raise UserError(f"{given}; allowed for this run: {listed}")
    return name, allowed[name]


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
    x = jax.jit(hypernetwork_of_states)(own["net"][0], obs, jnp.asarray(found.vectors), log_policy)
    ratio = learned_ratio(x, log_policy, credit.hindsight_loss, credit.clip_ratio)
    learned, silent = np.asarray(ratio, float) - 1.0, np.asarray(jnp.all(x == 0.0, axis=-1))

    pi = np.exp(np.asarray(log_policy, float))
    pi /= pi.sum(axis=1, keepdims=True)
    with jax.enable_x64(True):
        table = jnp.asarray(pi)
        counts = exact.outcome_counts(mdp, table, found.encoding)
        w = np.asarray(exact.contribution_ratio(counts, table)).swapaxes(1, 2)[:, :-1] - 1.0
        times = np.asarray(exact.outcome_counts(mdp, table, found.paid))
        paid = np.asarray(exact.outcome_rewards(mdp, table, found.paid))
        visits = np.asarray(exact.state_distributions(mdp, table))
        at_once, q = np.asarray(exact.mean_rewards(mdp)), np.asarray(exact.values(mdp, table).q)
    times, paid = (np.einsum("sa,sak->sk", pi, x)[:, :-1] for x in (times, paid))
    believed = np.asarray(mlp(own["reward"][0], obs)) if credit.method == "hca" else at_once
    outcomes, seen = (
        first + np.einsum("ska,sk->sa", v, paid) for first, v in ((at_once, w), (believed, learned))
    )

    share = visits[:, None] * times
    size, error = (np.einsum("sa,ska->sk", pi, np.abs(v)) for v in (w, learned - w))
    report: dict[str, Any] = {
        "size": _mean(size, share),
        "error": _mean(error, share),
        "silent": _mean(silent, share * size),
        **_advantages(pi, visits, q, outcomes, seen),
    }
    starts = np.flatnonzero(mdp.start)
    if len(starts) > 1:
        return report
    start = int(starts[0])
    rows = [
        {
            "outcome": found.names[k],
            "reward": _short(paid[start, k] / times[start, k]),
            "times": _short(times[start, k]),
            "exact": _short(w[start, k]),
            "learned": _short(learned[start, k]),
            "silent": bool(silent[start, k]),
        }
        for k in np.flatnonzero(times[start])
    ]
    return {**report, "first_policy": _short(pi[start]), "first_decision": rows}


def _advantages(pi: np.ndarray, visits: np.ndarray, *values: np.ndarray) -> dict[str, float | None]:
    """What `inspect_run` says of advantages: true, with exact and with learned coefficients, each [S, A] and up to a
    number per state, which the gradient does not see."""
    mean = lambda values: np.sum(pi * values, axis=1)  # noqa: E731
    true, outcomes, learned = (v - mean(v)[:, None] for v in values)
    size, best = mean(np.abs(true)), true.argmax(axis=1)
    # A silent network says 0 up to rounding.
    misled = learned[np.arange(len(best)), best] < 1e-6
    return {
        "advantage": _mean(size, visits),
        "outcome_error": _mean(mean(np.abs(outcomes - true)), visits),
        "learned_error": _mean(mean(np.abs(learned - true)), visits),
        "misled": _mean(misled, visits * size),
    }


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    """None where nothing has a weight."""
    total = weights.sum()
    return float((values * weights).sum() / total) if total > 0 else None


def _short(values: Any) -> Any:
    return np.round(values, 6).tolist()


def _outcomes(credit: CreditConfig, built: BuiltWorld, mdp: FiniteMDP, own: Any) -> _Outcomes:
    values = np.asarray(mdp.reward_values)
    S, A, R = np.asarray(mdp.reward_probs).shape
    if credit.method == "cocoa_reward":
        listed = [v for v in built.spec.reward_values if v != 0.0 or not credit.mask_zero_reward]
        vectors, names = np.eye(len(listed), dtype=np.float32), _short(listed)
        index = np.abs(values[:, None] - np.array(listed)[None]).argmin(axis=1)
    elif credit.method == "cocoa_feature":
        c = credit.features
        obs = jnp.repeat(jnp.asarray(mdp.observations, jnp.float32), A, axis=0)
        bits = features(own["features"], obs, jnp.tile(jnp.arange(A), S), c.threshold, c.binary)
        vectors, codes = np.unique(np.asarray(bits > 0, np.float32), axis=0, return_inverse=True)
        names = [np.flatnonzero(code).tolist() for code in vectors]
        index = codes.reshape(S, A, 1)
    else:
        vectors = np.asarray(mdp.observations, np.float32)
        names = _short(mdp.observations)
        index = np.arange(S)[:, None, None]
    # Nothing happens any more in terminal states, and with the mask steps without reward are no examples.
    rewarded = np.broadcast_to(values != 0.0, (S, A, R))
    examples = ~np.broadcast_to(np.asarray(mdp.terminal)[:, None, None], (S, A, R))
    if credit.mask_zero_reward:
        examples = examples & rewarded
    kept = len(vectors)
    encodings = (
        exact.Encoding(index=np.where(chosen, index, kept).astype(np.int32), size=kept + 1)
        for chosen in (examples, examples & rewarded)
    )
    return _Outcomes(names, vectors, *encodings)
