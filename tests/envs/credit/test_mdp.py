"""How a model in plain Python becomes tables, and which models are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.credit import (
    Interleaving,
    InterleavingParams,
    KeyToDoor,
    Model,
    Outcome,
    enumerate_mdp,
    exact,
)
from envs.credit.mdp import check_horizon, unique_rewards


def chain(length, horizon, reward=1.0, observe=lambda s: [s]):
    return Model(
        start=[(1.0, 0)],
        outcomes=lambda s, a: [Outcome(1.0, reward if s + 1 == length else 0.0, s + 1)],
        observe=observe,
        is_terminal=lambda s: s >= length,
        num_actions=2,
        horizon=horizon,
        reward_values=(0.0, 1.0),
    )


def test_models_are_checked():
    assert enumerate_mdp(chain(3, 3)).num_states == 4
    with pytest.raises(ValueError, match="horizon=2 is shorter than an episode"):
        enumerate_mdp(chain(3, 2))
    with pytest.raises(ValueError, match=r"reward 0\.3 is not in the list"):
        enumerate_mdp(chain(3, 3, reward=0.3))
    with pytest.raises(ValueError, match="have the same observation"):
        enumerate_mdp(chain(3, 3, observe=lambda s: [s >= 3]))
    with pytest.raises(ValueError, match="number of states exceeds"):
        enumerate_mdp(chain(10**6, 10**6))


def test_reward_and_next_state_must_be_independent():
    """A coin that pays and leads to the room of the winners: tables would let losers in."""

    def model(outcomes):
        return Model(
            start=[(1.0, "s")],
            outcomes=lambda s, a: outcomes if s == "s" else [Outcome(1.0, 0.0, "end")],
            observe=lambda s: [["s", "won", "lost", "end"].index(s)],
            is_terminal=lambda s: s == "end",
            num_actions=2,
            horizon=2,
            reward_values=(0.0, 1.0),
        )

    coin = [Outcome(0.5, 1.0, "won"), Outcome(0.5, 0.0, "lost")]
    with pytest.raises(ValueError, match=r"follow on state 's' and action 0 with probability") as e:
        enumerate_mdp(model(coin))
    assert "need the two to be independent" in str(e.value)
    two = [
        Outcome(p * q, r, s)
        for p, r in ((0.3, 1.0), (0.7, 0.0))
        for q, s in ((0.4, "won"), (0.6, "lost"))
    ]
    assert enumerate_mdp(model(two)).num_states == 4


def test_cut_episodes_are_refused():
    """Tables know no clock: of 3 steps they count 4 rewards, from states of every age. So the horizon of
    a world whose states repeat must leave nearly no episode unfinished."""
    env = Interleaving(2, 1, 1)
    with pytest.raises(ValueError, match=r"horizon=3 is shorter than 0\.86 of the episodes"):
        enumerate_mdp(env, InterleavingParams(3, 0.05))  # 0.95^3 go on
    with pytest.raises(ValueError, match=r"at most 0\.01 of them"):
        enumerate_mdp(env, InterleavingParams(80, 0.05))  # 1.7 %
    mdp = enumerate_mdp(env, InterleavingParams(100, 0.05))  # 0.6 %, the paper's
    enumerate_mdp(env, InterleavingParams(80, 0.05), cut_tolerance=0.02)
    # The value of the world that is really cut, by steps in plain numpy, is that of the tables then.
    kernel, paid = mdp.transition.mean(1), (mdp.reward_probs @ mdp.reward_values).mean(1)
    true = np.zeros(mdp.num_states)
    for _ in range(100):
        true = paid + kernel @ true
    with jax.enable_x64(True):
        v = exact.values(mdp, jnp.full((mdp.num_states, 2), 0.5)).v
    assert mdp.start @ np.asarray(v) == pytest.approx(mdp.start @ true, rel=0.01)
    with pytest.raises(ValueError, match="horizon=40 is shorter than"):
        check_horizon(mdp, 40)


def test_equal_rewards_are_one():
    assert unique_rewards([0.1, 0.9, 0.1 + 1e-7]) == (0.0, 0.1, 0.9)
    env = KeyToDoor(length=103)
    assert len(env.reward_values(env.make_params(treasure=(0.1,)))) == 3
    assert len(env.reward_values(env.default_params)) == 4
