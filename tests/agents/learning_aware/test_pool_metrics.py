"""What a pool's metrics say of who does the work."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from agents.learning_aware import population
from agents.learning_aware.policies import Policy
from agents.learning_aware.shaping import MetaEpisode, against_meta
from envs.social.cleanup import APPLE, DIRT, DOWN, LEFT, RIGHT, STAY, UP, CleanUp


def test_uneven_sharing_does_not_cancel_over_chains():
    """Half of the chains have one cleaner, half the other: nobody cleans more on average, and yet the gap is 1."""
    cleaned = jnp.zeros((2, 4, 6, 2)).at[0, ..., 0].set(1.0).at[1, ..., 1].set(1.0)
    still = jnp.zeros((2, 4, 6))
    episodes = MetaEpisode(still, still.astype(jnp.int32), still, still, {"cleaned": cleaned})
    metrics = population.episode_metrics("meta", episodes, 3)
    assert metrics["meta/ego_cleaned"] == metrics["meta/co_cleaned"] == 0.5
    assert metrics["meta/cleaned_gap"] == 1.0


def walker(target):
    """CleanUp-lite: to the nearest `target` cell, or nowhere where there is none."""
    game = CleanUp()

    def step(params, obs, carry):
        cell, objects = obs[:, 0].astype(jnp.int32), obs[:, 4:]
        row, column = cell // game.columns, cell % game.columns
        rows, columns = (x[None] for x in divmod(jnp.arange(game.num_cells), game.columns))
        far = jnp.abs(rows - row[:, None]) + jnp.abs(columns - column[:, None])
        goal = jnp.argmin(jnp.where(objects == target, far, 99), axis=1)
        down, right = goal // game.columns - row, goal % game.columns - column
        move = jnp.where(right > 0, RIGHT, jnp.where(right < 0, LEFT, STAY))
        move = jnp.where(down > 0, DOWN, jnp.where(down < 0, UP, move))
        move = jnp.where((objects == target).any(axis=1), move, STAY)
        logits = 1e3 * jax.nn.one_hot(move, game.num_actions)
        return carry, logits, jnp.zeros(obs.shape[0])

    return Policy(lambda key: {}, lambda batch: (), step, lambda *_: None)


def test_the_gap_of_a_cleaner_and_a_harvester_is_the_cleaners_share():
    game = CleanUp(episode_length=32)
    play = partial(
        against_meta,
        ego_params={},
        other_params={},
        game=game,
        inner_episodes=2,
        batch=8,
    )
    cleaner, harvester = walker(DIRT), walker(APPLE)

    @jax.jit
    def metrics(key):
        # Each has either role in one of the two meta-episodes, as agents of a pool have.
        both = [
            play(key, ego=cleaner, other=harvester),
            play(key, ego=harvester, other=cleaner),
        ]
        episodes = jax.tree.map(lambda *x: jnp.stack(x), *both)
        return population.episode_metrics("meta", episodes, game.episode_length), episodes.info

    numbers, info = metrics(jax.random.key(0))
    assert numbers["meta/dirt"] < 2.5
    # The harvester walks past the river's border only by chance of its start.
    assert float(info["cleaned"][0, ..., 1].mean()) < 0.02
    share = float(info["cleaned"][0, ..., 0].mean())
    assert share > 0.2
    assert float(numbers["meta/cleaned_gap"]) == pytest.approx(share, abs=0.02)
    assert abs(float(numbers["meta/ego_cleaned"] - numbers["meta/co_cleaned"])) < 0.02
