"""A user's own game, naive learner and estimator: the files of the docs page, in a run."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import references
from agents.learning_aware.estimators import ESTIMATORS, by_name, score_weights
from configs import social as presets
from envs.social.matrix import GAMES
from internal_rl.errors import UserError
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.own_files import check_unchanged
from internal_rl.social.build import make_game, make_learner, validate_embedded, validate_social
from internal_rl.social.config import EmbeddedConfig, GameConfig, NaiveConfig, SocialConfig
from internal_rl.social.embedded import embedded_report
from internal_rl.social.evaluate import evaluate_run
from internal_rl.social.pipeline import run_social

PAGE = Path(__file__).parents[3] / "docs" / "social-own.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the page shows, in an empty working folder."""
    for name, body in re.findall(r'```python\n"""(\w+\.py)"""\n(.*?)```', PAGE.read_text(), re.S):
        (tmp_path / name).write_text(body)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smoke(game="prisoners_dilemma", rule="policy_gradient", estimator="coala"):
    config = presets.get("social-smoke", SocialConfig)
    return replace(
        config,
        game=replace(config.game, name=game),
        naive=replace(config.naive, rule=rule),
        pool=replace(config.pool, estimator=estimator),
    )


def test_a_run_with_all_three_is_trained_and_evaluated(folder):
    config = smoke("my_games.py:Commons", "my_learners.py:slowing", "my_learners.py:NEXT_EPISODE")
    short = replace(config, iterations=2)
    run = run_social(short, folder / "run", progress=False)
    assert read_metrics(run)["naive/stock"].min() >= 0
    result = evaluate_run(run, episodes=2)
    assert len(result["cooperation_by_observation"]["naive"][0]) == 9
    # Two players who take what they can leave nothing after two steps.
    game = make_game(config.game)
    state, _ = game.reset(jax.random.key(0))
    for caught in (3.0, 2.0, 0.0):
        state, step = game.step(jax.random.key(0), state, jnp.ones(2, jnp.int32))
        assert step.reward.tolist() == [caught, caught]


def test_a_file_that_changes_stops_the_run_that_needs_it(folder, monkeypatch):
    config = smoke("my_games.py:DEADLOCK", estimator="coala")
    run = run_social(replace(config, iterations=2), folder / "run", progress=False)
    assert set(run.info["own_files"]) == {"my_games.py:DEADLOCK"}
    file = folder / "my_games.py"
    before = file.read_text()
    file.write_text(before + "# other payoffs, say\n")
    for again in (
        lambda: run_social(config, run.path, resume=True, progress=False),
        lambda: evaluate_run(run, episodes=1),
    ):
        with pytest.raises(UserError, match=r"my_games.py:DEADLOCK has changed since .*put the"):
            again()
    file.write_text(before)
    check_unchanged(run)
    file.unlink()
    with pytest.raises(UserError, match=r"needs my_games.py:DEADLOCK: .*No such file"):
        evaluate_run(run, episodes=1)
    # A new process has not imported the file yet.
    monkeypatch.setattr(references, "_from_file", references._from_file.__wrapped__)
    with pytest.raises(UserError, match=r"needs my_games.py:DEADLOCK: no file .*my_games.py"):
        evaluate_run(run, episodes=1)


def test_payoffs_are_a_matrix_game(folder):
    Path("dilemma.py").write_text(f"import numpy as np\nLISTED = np.array({GAMES['chicken']})\n")
    assert make_game(GameConfig("dilemma.py:LISTED", 7)) == make_game(GameConfig("chicken", 7))


def test_embedded_agents_play_payoffs(folder):
    Path("twin.py").write_text(
        f"TWIN = {GAMES['twin_dilemma']}\nWIDE = {GAMES['subjective_only']}\n"
    )
    config = EmbeddedConfig(alphas=(0.6,), rounds=4)
    own = embedded_report(replace(config, game="twin.py:TWIN"))
    assert own["rows"] == embedded_report(config)["rows"]
    with pytest.raises(UserError, match=r"game is 'twin.py:WIDE', of shape \[2, 3, 3\]; allowed"):
        validate_embedded(replace(config, game="twin.py:WIDE"))
    with pytest.raises(UserError, match=r"game is 'my_games.py:Commons'; allowed: .* payoffs \[2"):
        validate_embedded(replace(config, game="my_games.py:Commons"))


def test_a_rule_of_an_installed_module():
    game = make_game(GameConfig())
    own = make_learner(NaiveConfig(rule="agents.learning_aware.naive:frozen"), game)
    params = own.policy.init(jax.random.key(0))
    assert own.update(own.init(params), None).params is params


def test_the_pages_estimator_looks_one_episode_ahead(folder):
    reward = jax.random.normal(jax.random.key(0), (3, 8))
    mine = by_name("my_learners.py:NEXT_EPISODE")
    # With two inner episodes the next is the last, so it is COALA-PG.
    both = (score_weights(e, reward, 4) for e in (mine, ESTIMATORS["coala"]))
    np.testing.assert_allclose(*both, rtol=1e-6)
    # With four, the last two do not reach the first.
    changed = reward.at[:, 4:].add(1.0)
    found = [score_weights(mine, r, 2)[:, :2] for r in (reward, changed)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("body", "config", "message"),
    [
        ("", smoke("f.py:GAME"), "game.name: 'f.py:GAME': f.py has no 'GAME'"),
        ("", smoke("g.py:GAME"), "game.name: no file .*g.py"),
        ("GAME = 3", smoke("f.py:GAME"), r"payoffs has shape \[\]; allowed"),
        ("GAME = [[1, 2], [3, 4, 5]]", smoke("f.py:GAME"), "payoffs is ragged"),
        ("def GAME(): ...", smoke("f.py:GAME"), r"cannot be called as \(episode_length=…\)"),
        ("def GAME(episode_length): return 1", smoke("f.py:GAME"), "int has no num_players"),
        ("RULE = 3", smoke(rule="f.py:RULE"), r"naive.rule: .* cannot be called as \(policy\)"),
        ("def RULE(p): return p", smoke(rule="f.py:RULE"), "returns a Policy; allowed: a Naive"),
        (
            "from agents.learning_aware.naive import *\n"
            "def RULE(p): return NaiveLearner(p, lambda x: LearnerState(x, ()), lambda s, e: LearnerState(s.params, 1))",
            smoke(rule="f.py:RULE"),
            "naive.rule: update turns .* into .* allowed: the same structure",
        ),
        ("W = 3", smoke(estimator="f.py:W"), "estimator is 'f.py:W', a int; allowed: an Estimator"),
        (
            "from agents.learning_aware.estimators import weighted_by\n"
            "W = weighted_by(lambda r, T: r.sum(0))",
            smoke(estimator="f.py:W"),
            r"weights are float32\[12\]; allowed: floating, of the rewards' shape \[4, 12\]",
        ),
        (
            "from agents.learning_aware.estimators import weighted_by\n"
            "def f(r, T):\n    return r.reshape(7)\nW = weighted_by(f)",
            smoke(estimator="f.py:W"),
            r"pool: estimator 'f.py:W', T = 4: .*f.py, line 3 in f: TypeError: cannot reshape",
        ),
        (
            "from envs.social.cleanup import CleanUp\nX = CleanUp()",
            smoke("f.py:X"),
            "'f.py:X' is a game already; allowed: its class",
        ),
        (
            "from envs.social.cleanup import CleanUp\nX = lambda episode_length: CleanUp()",
            smoke("f.py:X"),
            r"'f.py:X' has episode_length 64; allowed: .*\(4\)",
        ),
        ("", smoke("f.py"), "game.name: 'f.py' names no object; allowed: path/to/file.py:NAME"),
        ("X = 1 / 0", smoke("f.py:X"), r"game.name: .*f.py, line 1 in .*: ZeroDivisionError"),
        ("def X(:", smoke("f.py:X"), r"game.name: .*f.py, line 1: SyntaxError"),
        ("def X(p):\n    return p.nothing", smoke(rule="f.py:X"), "line 2 in X: AttributeError"),
        ("", smoke(estimator="coala_pg"), "allowed: .*lola_dice, or file.py:NAME"),
        ("", smoke(rule="policy_grad"), "did you mean 'policy_gradient'.* or file.py:NAME"),
        ("", smoke("chickens"), "did you mean 'chicken'.* or file.py:NAME"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, body, config, message):
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(body)
    with pytest.raises(UserError, match=message):
        validate_social(config)


def test_own_weights_have_no_critic(folder):
    config = smoke(estimator="my_learners.py:NEXT_EPISODE")
    objective = replace(config.pool.objective, algorithm="a2c")
    policy = replace(config.policy, critic=True)
    pool = replace(config.pool, objective=objective)
    with pytest.raises(UserError, match="with a2c; allowed with a critic: coala"):
        validate_social(replace(config, policy=policy, pool=pool))


def test_training_stops_when_parameters_are_lost(folder):
    """Rewards stay finite then, whatever the actions are."""
    Path("f.py").write_text(
        "from agents.learning_aware.estimators import weighted_by\n"
        "W = weighted_by(lambda r, T: r * float('nan'))\n"
    )
    config = smoke(estimator="f.py:W")
    with pytest.raises(UserError, match=r"step 2: .*grad_norm.* not finite; no checkpoint"):
        run_social(config, folder / "run", progress=False)
