import dataclasses
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from configs import social as presets
from envs.social.matrix import IteratedMatrixGame
from internal_rl.commands import social as cli
from internal_rl.commands.main import main
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import open_run
from internal_rl.social.build import (
    make_learner,
    validate_analytic,
    validate_embedded,
    validate_predictive,
    validate_social,
)
from internal_rl.social.config import (
    AnalyticConfig,
    EmbeddedConfig,
    NaiveConfig,
    PredictiveConfig,
    SocialConfig,
)
from internal_rl.social.film import film

ROOT = Path(__file__).parents[3]
QUICK = ("--no-progress",)


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_every_preset_is_valid():
    for name, preset in presets.PRESETS.items():
        assert preset.name == name
        check = {
            SocialConfig: validate_social,
            AnalyticConfig: validate_analytic,
            EmbeddedConfig: validate_embedded,
            PredictiveConfig: validate_predictive,
        }[type(preset)]
        check(preset)


def test_train_resume_and_evaluate(tmp_path, capsys):
    run = tmp_path / "run"
    flags = ("--preset", "social-smoke", "--run", str(run), *QUICK)
    assert main(["social", "train", *flags, "--seeds", "2", "--runtime.checkpoint-every", "2"]) == 0
    whole = lines(run)
    assert len(whole) == 2
    assert np.shape(whole[-1]["meta/ego_reward"]) == (2,)
    # Back to the first checkpoint, and on from there: the same numbers.
    (run / "checkpoints" / "4" / "manifest.json").unlink()
    assert main(["social", "train", *flags, "--resume"]) == 0
    assert lines(run) == whole
    # Another preset, whose settings it could only ignore, is refused.
    other = ["social", "train", "--preset", "ipd-mixed-tabular", "--run", str(run), "--resume"]
    assert main(other) == 2
    assert "preset is 'ipd-mixed-tabular'; allowed with --resume" in capsys.readouterr().err
    assert main(["social", "evaluate", "--run", str(run), "--episodes", "2"]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert np.shape(result["by_inner_episode"]["naive"]["ego"]) == (2, 3)
    assert len(result["reward"]["meta"]["ego"]["seeds"]) == 2
    assert (run / "figures" / "inner_episodes.png").stat().st_size > 5000
    capsys.readouterr()
    assert main(["social", "evaluate", "--run", str(run)]) == 2
    assert "exists; choose another name" in capsys.readouterr().err


# COALA's table of hyperparameters (arXiv 2410.18636, App. F): optimiser, learning rate, norm clip, reward scale.
PAPER_VALUES = {
    ("cleanup-shaping-paper", "coala"): ("adam", 1e-3, 1.0, 0.1),
    ("cleanup-shaping-paper", "batch_unaware"): ("adam", 1e-3, 1.0, 1.0),
    ("cleanup-shaping-paper", "m_fos"): ("adam", 3e-3, 1.0, 1.0),
    ("cleanup-shaping-paper", "lola_dice"): ("sgd", 0.1, 0.0, 1.0),
    ("cleanup-mixed-paper", "coala"): ("sgd", 0.1, 1.0, 0.1),
    ("cleanup-mixed-paper", "batch_unaware"): ("sgd", 0.03, 1.0, 0.1),
    ("cleanup-mixed-paper", "m_fos"): ("sgd", 0.03, 1.0, 0.1),
    ("cleanup-mixed-paper", "lola_dice"): ("sgd", 0.03, 1.0, 0.1),
    # One objective for all methods.
    ("ipd-mixed-paper", "coala"): ("adam", 3e-4, 1.0, 0.05),
    ("ipd-mixed-paper", "m_fos"): ("adam", 3e-4, 1.0, 0.05),
}


@pytest.mark.parametrize(("preset", "estimator"), PAPER_VALUES)
def test_methods_have_the_papers_values(preset, estimator):
    """On the command line, and so in the figures, which use `with_estimator`, too."""
    flags = ["--preset", preset, "--run", "unused", "--pool.estimator", estimator]
    config = cli.resolve(cli.parse("train", flags))
    validate_social(config)
    assert config.pool.estimator == estimator
    objective = config.pool.objective
    found = objective.optimizer
    values = (found.kind, found.learning_rate, found.grad_clip, objective.reward_scale)
    assert values == PAPER_VALUES[preset, estimator]
    assert config == presets.with_estimator(presets.get(preset, SocialConfig), estimator)
    own = cli.parse("train", [*flags, "--pool.objective.reward-scale", "0.7"])
    assert cli.resolve(own).pool.objective == replace(objective, reward_scale=0.7)


@pytest.mark.slow
def test_cleanup_trains_and_is_filmed(tmp_path):
    run = tmp_path / "run"
    small = (
        "--policy.width 4 --policy.mlp-width 4 --naive.policy.width 4 --naive.policy.mlp-width 4"
    )
    flags = ("--preset", "cleanup-smoke", "--run", str(run), *QUICK, *small.split())
    assert main(["social", "train", *flags]) == 0
    last = lines(run)[-1]
    assert 0 <= last["meta/dirt"] <= 5
    assert 0 <= last["naive/ego_zapped"] <= 1
    film(open_run(run), tmp_path / "episode.gif")
    frames = imageio.imread(tmp_path / "episode.gif", index=None)
    assert frames.shape[1:] == (160, 128, 3)
    assert 2 <= len(frames) <= 8  # neighbours that look alike share a frame
    assert (frames[0] != frames[-1]).any()


def test_analytic(tmp_path):
    run = tmp_path / "run"
    command = ["social", "analytic", "--preset", "analytic-smoke", "--run", str(run), *QUICK]
    assert main([*command, "--seeds", "2"]) == 0
    assert main(["social", "evaluate", "--run", str(run), "--naive-updates", "3"]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert len(result["mutual_reward"]["seeds"]) == 2
    assert 0 <= result["cooperation"]["DC"]["median"] <= 1


@pytest.mark.slow
def test_predictive(tmp_path):
    """With a step per round; `test_predictive_steps` trains the preset's step per symbol, and resumes it."""
    run = tmp_path / "run"
    flags = ("--preset", "ppi-smoke", "--run", str(run), *QUICK)
    assert main(["social", "predictive", *flags, "--seeds", "2", "--gru-step", "round"]) == 0
    first, second = lines(run)
    assert np.shape(second["meta_reward"]) == (2,)
    assert (np.array(second["tabular/ego_cooperation"]) >= 0).all()
    assert np.isfinite([first["loss"], second["loss"]]).all()


@pytest.mark.slow
def test_the_a2c_baseline_resumes_and_is_evaluated(tmp_path):
    run = tmp_path / "run"
    flags = ("--preset", "ppi-a2c-smoke", "--run", str(run), *QUICK)
    assert main(["social", "train", *flags, "--seeds", "2", "--runtime.checkpoint-every", "1"]) == 0
    whole = lines(run)
    (run / "checkpoints" / "2" / "manifest.json").unlink()
    assert main(["social", "train", *flags, "--resume"]) == 0
    assert lines(run) == whole
    assert main(["social", "evaluate", "--run", str(run), "--episodes", "2"]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    # One inner episode; two seeds.
    assert np.shape(result["by_inner_episode"]["naive"]["ego"]) == (2, 1)
    assert len(result["reward"]["meta"]["ego"]["seeds"]) == 2


def test_embedded(tmp_path, capsys):
    output = tmp_path / "twins.json"
    flags = ("--alphas", "0.6", "0.1", "--rounds", "6", "--output", str(output))
    assert main(["social", "embedded", *flags]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [row["embedded"] for row in rows] == ["CCCCCC", "DDDDCC"]
    assert [row["closed_form"] for row in rows] == ["CCCCCC", "DDDDCC"]
    assert {row["decoupled"] for row in rows} == {"DDDDDD"}
    capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --game.name stag", "did you mean 'stag_hunt'"),
        ("train --pool.p-naive 0.7", "p_naive + p_meta is 0.7 + 0.75 = 1.45; allowed: 1"),
        ("train --pool.estimator coala_pg", "estimator is 'coala_pg'; allowed: coala"),
        ("train --game.name cleanup", "policy.kind is 'tabular'; allowed in a game"),
        (
            "train --policy.kind tabular_by_episode --naive.policy.kind tabular_by_episode",
            "naive.policy.kind is 'tabular_by_episode'",
        ),
        ("train --iterations 7", "iterations is 7; allowed: a positive multiple of"),
        ("train --preset coala-fig3a", "unknown preset 'coala-fig3a'; did you mean"),
        (
            "train --preset social-smoke --pool.naive-episodes -1",
            "naive_episodes is -1; allowed: at least 0",
        ),
        (
            "train --pool.objective.optimizer.learning-rate -1",
            "objective.optimizer.learning_rate is -1.0; allowed: above 0",
        ),
        (
            "train --naive.rule actor_critic --naive.actor-critic.optimizer.learning-rate 0",
            "naive.actor_critic: optimizer.learning_rate is 0.0; allowed: above 0",
        ),
        (
            "train --naive.policy-gradient.step-size nan",
            "naive.policy_gradient.step_size is nan; allowed: finite numbers",
        ),
        (
            "analytic --agents.optimizer.learning-rate -1",
            "agents: optimizer.learning_rate is -1.0; allowed: above 0",
        ),
        (
            "analytic --agents.payoffs 1 -1 nan 0",
            "agents.payoffs is nan; allowed: finite numbers",
        ),
        ("predictive --agents.beta inf", "agents.beta is inf; allowed: finite numbers"),
        ("analytic --agents.discount 1", "discount is 1.0; allowed: in [0, 1)"),
        ("predictive --game.name cleanup", "game.name is 'cleanup'; allowed: matrix games"),
        ("predictive --agents.rollouts 0", "rollouts is 0; allowed: at least 1"),
        ("predictive --agents.final-rate 2", "final_rate is 2.0; allowed: in [0, 1]"),
        ("predictive --iterations 19", "iterations is 19; allowed: at most agents.phases (18)"),
        ("train --policy.kind random_tables", "policy.kind is 'random_tables'"),
        ("learn", "unknown command 'social learn'; did you mean"),
    ],
)
def test_mistakes_end_in_one_line(command, message, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["social", *command.split()]
    words += ["--run", str(run)] if words[1] != "learn" else []
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not run.exists()


def changed(config, path, value):
    """`config` with the dotted field `path` replaced."""
    name, _, rest = path.partition(".")
    inner = changed(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: inner})


OUT_OF_RANGE = [
    ("pool.objective.discount", 2.0, "in [0, 1]"),
    ("pool.objective.gae_lambda", -1.0, "in [0, 1]"),
    ("pool.objective.td_lambda", 3.0, "in [0, 1]"),
    ("pool.objective.clip", -0.2, "above 0"),
    ("pool.objective.reward_scale", 0.0, "above 0"),
    ("pool.objective.entropy_weight", -1.0, "at least 0"),
    ("pool.objective.value_weight", -1.0, "at least 0"),
    ("pool.objective.optimizer.grad_clip", -1.0, "at least 0"),
    ("naive.policy_gradient.discount", 3.0, "in [0, 1]"),
    ("naive.policy_gradient.step_size", -4.0, "at least 0"),
    ("naive.actor_critic.discount", 3.0, "in [0, 1]"),
    ("naive.actor_critic.epochs", 0, "at least 1"),
    ("naive.actor_critic.clip", 0.0, "above 0"),
    ("policy.noise", -1.0, "at least 0"),
    ("agents.naive_rate", -5.0, "at least 0"),
    ("agents.naive_start_std", -1.0, "at least 0"),
    ("agents.naive_only_steps", -3, "at least 0"),
]


@pytest.mark.parametrize(("path", "value", "allowed"), OUT_OF_RANGE)
def test_numbers_out_of_range(path, value, allowed):
    kind, preset, validate = (
        (AnalyticConfig, "analytic-smoke", validate_analytic)
        if path.startswith("agents.")
        else (SocialConfig, "social-smoke", validate_social)
    )
    config = changed(presets.get(preset, kind), path, value)
    with pytest.raises(UserError, match=re.escape(f" is {value}; allowed: {allowed}")) as error:
        validate(config)
    assert path.split(".")[-1] in str(error.value)


LOLA = {"pool.estimator": "lola_dice", "pool.lola.discount": 0.96}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool.objective.algorithm": "ppo"}, "policy.kind is 'tabular' without a critic"),
        (
            {"pool.objective.algorithm": "a2c", "policy.kind": "tabular_by_episode"}
            | {"policy.critic": True},
            "policy.kind is 'tabular_by_episode' without a critic",
        ),
        (
            LOLA | {"policy.kind": "tabular_by_episode"},
            "allowed: tabular, or hawk with policy.memory",
        ),
        (
            LOLA | {"policy.kind": "hawk"},
            "policy.kind is 'hawk', which plays on over inner episodes",
        ),
        (LOLA | {"pool.lola.discount": 5.0}, "discount is 5.0; allowed: in [0, 1]"),
        (LOLA | {"pool.lola.rate": -1.0}, "rate is -1.0; allowed: at least 0"),
    ],
)
def test_policies_that_cannot_be_trained_so(changes, message):
    config = presets.get("social-smoke", SocialConfig)
    for path, value in changes.items():
        config = changed(config, path, value)
    with pytest.raises(UserError, match=re.escape(message)):
        validate_social(config)


def test_policies_that_can_be_trained_so():
    smoke = presets.get("social-smoke", SocialConfig)
    critic = changed(changed(smoke, "policy.critic", True), "pool.objective.algorithm", "ppo")
    short = changed(changed(smoke, "policy.kind", "hawk"), "policy.memory", "inner_episode")
    for config in (critic, short, changed(short, "pool.estimator", "lola_dice")):
        validate_social(config)


def test_unknown_learners_are_named():
    config = NaiveConfig(rule="actor_critics")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        UserError, match=r"naive.rule is 'actor_critics'; did you mean 'actor_critic'"
    ):
        make_learner(config, IteratedMatrixGame())


def test_bad_alphas(capsys):
    empty = dataclasses.replace(presets.get("mupi-twin", EmbeddedConfig), alphas=())
    with pytest.raises(
        UserError, match=r"alphas is empty; allowed: at least one number in \[0, 1\]"
    ):
        validate_embedded(empty)
    assert main(["social", "embedded", "--alphas", "1.5"]) == 2
    assert "alphas holds 1.5; allowed: numbers in [0, 1]" in capsys.readouterr().err


def commands():
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for line in page.read_text().splitlines():
            if line.startswith("internal-rl social "):
                yield page.name, line


def test_documented_commands_parse():
    found = list(commands())
    assert found
    for page, line in found:
        name, *flags = shlex.split(line)[2:]
        assert name in cli.COMMANDS, f"{page}: {line}"
        cli.parse(name, flags)
