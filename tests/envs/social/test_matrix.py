import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.social.matrix import (
    GAMES,
    MATCHING_PENNIES,
    PRISONERS_DILEMMA,
    IteratedMatrixGame,
    check_payoffs,
    joint_actions,
    payoffs_by_name,
)

KEY = jax.random.key(0)


def play(game, plans):
    """Rewards [T, N] of scripted players: functions of their own observation."""
    state, obs = game.reset(KEY)
    rewards = []
    for _ in range(game.episode_length):
        actions = jnp.array([plan(int(o)) for plan, o in zip(plans, obs, strict=True)], jnp.int32)
        state, step = game.step(KEY, state, actions)
        obs = step.obs
        rewards.append(np.asarray(step.reward))
    return np.stack(rewards)


def tit_for_tat(obs):
    return 0 if obs in (0, 1, 3) else 1  # start, CC, DC: the other cooperated


def defect(obs):
    return 1


def test_scripted_pairs():
    game = IteratedMatrixGame(episode_length=4)
    np.testing.assert_array_equal(play(game, (tit_for_tat, tit_for_tat)), np.ones((4, 2)))
    np.testing.assert_array_equal(
        play(game, (tit_for_tat, defect)), [[-1, 2], [0, 0], [0, 0], [0, 0]]
    )


def test_own_action_comes_first():
    game = IteratedMatrixGame()
    _, step = game.step(KEY, (), jnp.array([0, 1], jnp.int32))
    assert step.obs.tolist() == [2, 3]  # CD for the first, DC for the second
    np.testing.assert_array_equal(game.encode(step.obs), np.eye(5)[[2, 3]])


def test_three_players():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3, 2, 2, 2))
    game = IteratedMatrixGame(tuple(map(tuple, [[tuple(map(tuple, b)) for b in a] for a in table])))
    assert game.num_observations == 9
    for joint in joint_actions(game):
        _, step = game.step(KEY, (), jnp.asarray(joint, jnp.int32))
        np.testing.assert_allclose(step.reward, table[(slice(None), *joint)], rtol=1e-6)
        for player in range(3):
            own_first = [joint[player], *(joint[j] for j in range(3) if j != player)]
            assert int(step.obs[player]) == 1 + int("".join(map(str, own_first)), 2)


def test_zero_sum_game_sums_to_zero():
    game = IteratedMatrixGame(MATCHING_PENNIES)
    for joint in joint_actions(game):
        assert float(game.step(KEY, (), jnp.asarray(joint, jnp.int32))[1].reward.sum()) == 0.0


def test_named_games():
    for name in GAMES:
        assert check_payoffs(payoffs_by_name(name)).shape[0] == 2
    assert payoffs_by_name("prisoners_dilemma") == PRISONERS_DILEMMA
    twin = np.asarray(GAMES["twin_dilemma"])
    np.testing.assert_array_equal(twin[1], twin[0].T)


@pytest.mark.parametrize(
    ("payoffs", "message"),
    [
        (((1.0, 2.0), (3.0, 4.0)), r"payoffs has shape \[2, 2\]; allowed: \[N, A, ..., A\]"),
        ((((1.0, 2.0), (3.0,)),) * 2, "payoffs is ragged"),
        ((((1.0, 2.0, 3.0), (3.0, 4.0, 5.0)),) * 2, r"shape \[2, 2, 3\]"),
        ((((1.0, float("nan")), (3.0, 4.0)),) * 2, "not finite"),
        (
            ((("1", "2"), ("3", "4")),) * 2,
            "payoffs holds values of type <U1; allowed: real numbers",
        ),
        ((((1.0, 2j), (3.0, 4.0)),) * 2, "type complex128; allowed: real numbers"),
        (None, "type object; allowed: real numbers"),
    ],
)
def test_bad_payoffs(payoffs, message):
    with pytest.raises(ValueError, match=message):
        IteratedMatrixGame(payoffs)


def test_bad_fields():
    with pytest.raises(ValueError, match=r"episode_length is 0; allowed: at least 1"):
        IteratedMatrixGame(episode_length=0)
    with pytest.raises(ValueError, match=r"game is 'prisoner'; allowed: prisoners_dilemma"):
        payoffs_by_name("prisoner")
