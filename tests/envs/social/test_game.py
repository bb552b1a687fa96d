"""What counts as a game."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

from envs.social.cleanup import CleanUp
from envs.social.game import SocialStep, check_game
from envs.social.matrix import GAMES, IteratedMatrixGame


@pytest.mark.parametrize("game", [CleanUp(), *map(IteratedMatrixGame, GAMES.values())])
def test_ours_are_games(game):
    assert check_game(game) is game


@dataclass(frozen=True)
class Counter:
    """A game that counts how often action 1 was taken; `broken` names what is wrong with it."""

    broken: str = ""
    num_players = 2
    num_actions = 2
    num_observations = 0
    obs_dim = 3
    episode_length = 4
    stochastic = False

    def reset(self, key):
        obs = jnp.zeros((2, 5), jnp.float32 if self.broken == "reset" else jnp.int32)
        return jnp.int32(0), obs

    def step(self, key, state, actions):
        state = state + jnp.sum(actions, dtype=jnp.int32)
        if self.broken == "state":
            state = state.astype(jnp.float32)
        result = SocialStep(
            obs=jnp.zeros((2, 4 if self.broken == "obs" else 5), jnp.int32),
            reward=jnp.zeros(2, jnp.int32 if self.broken == "reward" else jnp.float32),
            info={"count": jnp.zeros(3)} if self.broken == "info" else {},
        )
        return state, result.obs if self.broken == "step" else result

    def encode(self, obs):
        return jnp.zeros((*obs.shape[:-1], 2 if self.broken == "encode" else 3))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("reset", r"observation of reset is float32\[2, 5\]; allowed: integer\[2, 5\]"),
        ("obs", r"observation of step is int32\[2, 4\]; allowed: int32\[2, 5\]"),
        ("reward", r"reward is int32\[2\]; allowed: floating\[2\]"),
        ("state", r"state int32\[\] into float32\[\]"),
        ("info", r"info\['count'\] has shape \[3\]; allowed: \[\] or \[2\]"),
        ("encode", r"encode is float32\[2, 2\]; allowed: floating\[2, 3\]"),
        ("step", "step returns a .* with the state; allowed: SocialStep"),
    ],
)
def test_wrong_functions(broken, message):
    assert check_game(Counter())
    with pytest.raises(ValueError, match=message):
        check_game(Counter(broken))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_players", 1, "num_players is 1; allowed: integers of at least 2"),
        ("episode_length", 2.5, "episode_length is 2.5; allowed: integers of at least 1"),
        ("num_observations", 7, r"num_observations is 7 .* \[2, 5\]; allowed: one integer"),
        ("__hash__", None, "cannot be hashed"),
        (
            "reset",
            lambda self, key: (jnp.int32(0), jax.random.randint(key, (2, 5), 0, 3)),
            "stochastic is False, but reset uses its key",
        ),
    ],
)
def test_wrong_sizes(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_game(type("Wrong", (Counter,), {name: value})())


def test_missing_members():
    with pytest.raises(ValueError, match=r"object has no num_players, num_actions, .*encode"):
        check_game(object())
