"""Pools that are refused, and the errors that say why."""

from dataclasses import replace

import pytest

from agents.learning_aware import population
from agents.learning_aware.lola import LolaSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.policies import tabular_by_episode
from tests.agents.learning_aware.pools import FAST, GAME, POOL, train


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"estimator": "lola_dice", "objective": ObjectiveSettings("ppo")},
            r"objective.algorithm is 'ppo' with estimator lola_dice; allowed: reinforce",
        ),
        (
            {"estimator": "lola_dice", "lola": LolaSettings(look_aheads=-1)},
            r"look_aheads is -1; allowed",
        ),
        ({"p_naive": 0.5}, r"p_naive \+ p_meta is 0.5 \+ 0.0 = 0.5; allowed: 1"),
        ({"p_naive": 1.2, "p_meta": -0.2}, r"p_naive is 1.2; allowed: in \[0, 1\]"),
        ({"p_naive": 0.5, "p_meta": 0.5}, r"num_meta is 1 with p_meta 0.5; allowed: at least 2"),
        ({"estimator": "coala-pg"}, r"estimator is 'coala-pg'; allowed: coala"),
        ({"batch": 0}, r"batch is 0; allowed: at least 1"),
        (
            {"meta_episodes": 1},
            r"objective.centre is 'per_step' with one meta-episode against naive .*; allowed: none, all, or at least 2",
        ),
        (
            {"meta_episodes": 1, "objective": replace(FAST, centre="leave_one_out")},
            r"objective.centre is 'leave_one_out' with one .* naive co-players; allowed: at least 2 of each",
        ),
        (
            {"num_meta": 2, "p_naive": 2 / 3, "p_meta": 1 / 3, "meta_episodes": 3}
            | {"objective": replace(FAST, centre="leave_one_out")},
            r"objective.centre is 'leave_one_out' with one .* meta co-players; allowed: at least 2 of each",
        ),
        ({"naive_episodes": 3}, r"naive_episodes is 3 of meta_episodes = 2"),
        ({"slices": 0}, r"slices is 0; allowed: divisors of 2, .* naive \(2\) and meta \(0\)"),
        ({"slices": 4}, r"slices is 4; allowed: divisors of 2"),
        (
            {"num_meta": 2, "meta_episodes": 6, "p_naive": 0.5, "p_meta": 0.5, "slices": 2},
            r"slices is 2; allowed: divisors of 3, .* naive \(3\) and meta \(3\)",
        ),
        (
            {"objective": replace(FAST, slices=3)},
            r"objective.slices is 3; allowed: divisors of 8, the chains of a minibatch",
        ),
        (
            {"objective": ObjectiveSettings("ppo", minibatches=2, slices=8)},
            r"objective.slices is 8; allowed: divisors of 4",
        ),
        ({"objective": replace(FAST, slices=0)}, r"objective.slices is 0; allowed: divisors of 8"),
        (
            {"estimator": "full", "objective": ObjectiveSettings("ppo")},
            r"estimator is 'full' with ppo",
        ),
        (
            {"objective": ObjectiveSettings("ppo", minibatches=3)},
            r"objective.minibatches is 3; allowed: divisors of K \* B = 8",
        ),
        (
            {"objective": ObjectiveSettings("trpo")},  # pyright: ignore[reportArgumentType]
            r"objective.algorithm is 'trpo'; allowed: reinforce, a2c, ppo",
        ),
    ],
)
def test_bad_pools(change, message):
    with pytest.raises(ValueError, match=message):
        train(replace(POOL, **change), 1)


def test_a_context_too_short():
    policy = tabular_by_episode(5, 2, 3, 2)
    with pytest.raises(ValueError, match=r"T \* M is 3 \* 5 = 15; allowed: at most .* context, 6"):
        train(replace(POOL, inner_episodes=5), 1, policy)


def test_one_meta_episode_may_be_centred_where_chains_share_nothing():
    for change in ({"estimator": "batch_unaware"}, {"objective": replace(FAST, centre="all")}):
        assert population.check_pool(replace(POOL, meta_episodes=1, **change), GAME) == (1, 0)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("coala,m_foss", "estimator is 'coala,m_foss'; allowed: coala"),
        ("coala,m_fos,coala", "allowed: one name, or 2"),
        ("coala,lola_dice", "estimator is 'coala,lola_dice'; allowed: coala"),
    ],
)
def test_wrong_rivals(estimator, message):
    pool = replace(POOL, num_meta=2, p_naive=0.5, p_meta=0.5, estimator=estimator)
    with pytest.raises(ValueError, match=message):
        population.check_pool(pool, GAME)
