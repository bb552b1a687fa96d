"""`internal-rl credit …`: commands end to end on the smallest worlds, and what they refuse."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from agents.credit import METHODS
from agents.credit.features import features_init
from configs import credit as presets
from internal_rl.commands import credit as cli
from internal_rl.credit import measure
from internal_rl.credit import run as runs
from internal_rl.credit.measure import variance_report
from internal_rl.credit.world import shadow_credits, validate, validate_shadow
from internal_rl.errors import UserError
from internal_rl.runs import loop
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir

SMALL = ["--preset", "cocoa-smoke", "--train.eval-episodes", "8", "--world.key-to-door.length", "5"]
LEARNED = ["--method", "reinforce", "--shadow.methods", "reinforce"]
SUCCESSOR = ["--credit.hindsight-loss", "successor"]
SWITCH = ["--world.key-to-door.treasure-after", "-0.2", "--train.switch-at", "5", *LEARNED]
ODD = [*SMALL, "--world.key-to-door.distractor", "0.1", "0.3141592"]
BURN = ["--train.batches", "10", "--credit.features.burn-in", "10"]
CUT = [
    "--preset",
    "cocoa-smoke",
    "--world.kind",
    "interleaving",
    "--world.interleaving.horizon",
    "2",
]
SHORT = ["--runtime.log-every", "2", "--runtime.checkpoint-every", "2"]


def run(*words):
    return cli.main([str(word) for word in words])


def test_train_and_resume_repeat_the_numbers(tmp_path):
    """COCOA-feature, since its features are made before the loop; stopped half way and resumed."""
    words = ["train", *SMALL, *SHORT, "--method", "cocoa_feature", "--seeds", "2"]
    words += ["--no-progress", "--credit.features.burn-in", "1", "--credit.features.steps", "20"]
    assert run(*words, "--run", tmp_path / "whole", "--train.batches", 4) == 0
    whole = read_metrics(RunDir(tmp_path / "whole"))
    assert whole["eval_treasure"].shape == (2, 2)
    assert (whole["unmatched_rewards"] == 0).all()
    assert RunDir(tmp_path / "whole").info["status"] == "done"

    assert run(*words, "--run", tmp_path / "half", "--train.batches", 2) == 0
    config = tmp_path / "half" / "config.json"
    config.write_text((tmp_path / "whole" / "config.json").read_text())
    assert run(*words, "--run", tmp_path / "half", "--resume") == 0
    again = read_metrics(RunDir(tmp_path / "half"))
    for name, column in whole.items():
        np.testing.assert_array_equal(again[name], column, err_msg=name)
    # Its settings need not be named again, and others are refused.
    resume = ["train", "--run", tmp_path / "half", "--resume"]
    assert run(*resume) == 0
    for flags, message in {
        ("--method", "advantage"): "credit.method is 'advantage'; allowed with --resume: 'cocoa_",
        ("--model", "exact"): "credit.model is 'exact'; allowed with --resume: 'learned'",
        ("--preset", "cocoa-tree"): "preset is 'cocoa-tree'; allowed with --resume: 'cocoa-smoke'",
        ("--train.batches", "8"): "train.batches is 8; allowed with --resume: 4",
    }.items():
        with pytest.raises(UserError, match=message):
            run(*resume, *flags)


def test_shadow(tmp_path):
    words = ["shadow", *SMALL, *SHORT, "--no-progress", "--train.batches", 2]
    words += ["--run", tmp_path / "run", "--method", "q_critic", "--model", "exact"]
    words += ["--shadow.exact-methods", "cocoa_reward", "--train.eval-episodes", 64]
    words += ["--shadow.perturbations", 0.0, 0.3]
    assert run(*words, "--shadow.methods", "reinforce", "cocoa_reward") == 0
    metrics = read_metrics(RunDir(tmp_path / "run"))
    for method in ("main", "reinforce", "cocoa_reward", "exact_cocoa_reward"):
        for name in ("snr_db", "variance_db", "bias_db", "cosine_sampled"):
            assert f"{name}/{method}" in metrics
    # The exact Q-critic has no variance at the first decision: no SNR, or that of rounding errors.
    first = metrics["snr_db/main"][0]
    assert np.isnan(first) or first > 60
    assert metrics["snr_db/exact_cocoa_reward"][0] > metrics["snr_db/reinforce"][0]
    assert metrics["bias_db/exact_cocoa_reward@0.3"][0] > -60


def test_shadow_trains_the_features_of_every_model(tmp_path, monkeypatch):
    """Also those of the acting one; before, it would act on its initial weights."""
    started = {}
    monkeypatch.setattr(loop, "run", lambda name, state, *_, **__: started.update(s=state))
    words = ["shadow", *SMALL, "--method", "cocoa_feature", "--shadow.methods", "cocoa_feature"]
    run(*words, "--credit.features.steps", "2", "--run", tmp_path / "run")
    credit = started["s"].credit
    blank = features_init(jax.random.key(0), "gate", 9, 4, 16)["backbone"]
    for name in ("main", "cocoa_feature"):
        found = credit[name]["features"]["backbone"]
        assert found.shape == blank.shape
        assert not np.array_equal(found, blank), name


def test_features_may_learn_from_steps_after_the_end(tmp_path, monkeypatch):
    data, distinct = {}, runs.distinct_transitions
    monkeypatch.setattr(loop, "run", lambda *_, **__: None)
    words = ["train", "--preset", "cocoa-smoke", "--method", "cocoa_feature", *CUT[2:4]]
    words += ["--credit.features.steps", "2", "--world.interleaving.death", "0.3"]
    for after in ("after-end", "no-after-end"):

        def seen(*item, after=after):
            data[after] = item[:3]
            return distinct(*item)

        monkeypatch.setattr(runs, "distinct_transitions", seen)
        run(*words, f"--credit.features.{after}", "--run", tmp_path / after)
    (obs, _, reward), (fewer, _, same) = data["after-end"], data["no-after-end"]
    config = presets.get("cocoa-smoke", "cocoa_feature")
    episodes = config.train.batch_size * (config.credit.features.burn_in + 1)
    assert len(obs) == episodes * config.world.interleaving.horizon
    assert 0.05 < len(fewer) / len(obs) < 0.3
    assert reward.sum() == pytest.approx(same.sum())
    assert np.sum(~obs.any(axis=1)) == len(obs) - len(fewer)  # a dead agent sees nothing


def test_model_alone_changes_the_acting_model_of_a_shadow_preset():
    for preset in ("cocoa-shadow-23", "cocoa-perturbed-23"):
        for model, rate in (("learned", 3e-4), ("exact", 1e-4)):
            args = cli.parse("shadow", ["--run", "x", "--preset", preset, "--model", model])
            credit = cli.resolve(args).credit
            assert (credit.method, credit.model, credit.policy_rate) == ("q_critic", model, rate)


@pytest.mark.parametrize(
    ("method", "model"),
    [("cocoa_reward", "exact"), ("advantage", "learned"), ("q_critic", "exact")],
)
def test_both_names_of_a_flag_bring_the_tuned_settings(method, model):
    preset = ["--run", "x", "--preset", "cocoa-length-103"]
    wanted = presets.get("cocoa-length-103", method, model)
    for prefix in ("--", "--credit."):
        flags = [f"{prefix}method", method, f"{prefix}model", model]
        assert cli.resolve(cli.parse("train", [*preset, *flags])) == wanted
    with pytest.raises(UserError, match=r"--model is 'exact' and --credit.model 'learned'"):
        cli.parse("train", [*preset, "--model", "exact", "--credit.model=learned"])


def test_shadowed_models_take_their_networks_from_the_flags(monkeypatch):
    found, build = {}, runs.build_model

    def seen(credit, built):
        found[credit.method] = credit
        return build(credit, built)

    monkeypatch.setattr(runs, "build_model", seen)
    words = ["--run", "x", *SMALL, "--method", "q_critic", "--credit.trace", "0.5"]
    words += ["--credit.value-width", "24", "--credit.hindsight-loss", "contrastive"]
    config = cli.resolve(cli.parse("shadow", [*words, "--shadow.methods", "advantage", "hca_plus"]))
    runs.shadow_models(config, runs.build_world(config.world))
    assert (found["advantage"].value_width, found["advantage"].trace) == (24, 1.0)
    assert (found["hca_plus"].hindsight_loss, found["hca_plus"].hindsight_width) == (
        "contrastive",
        16,
    )


def test_successor_counts_are_shared_with_the_methods_that_have_coefficients():
    words = ["--run", "x", *SMALL, "--method", "q_critic", "--model", "exact", *SUCCESSOR]
    words += ["--shadow.methods", "advantage", "cocoa_reward"]
    config = cli.resolve(cli.parse("shadow", words))
    validate(config)
    validate_shadow(config)
    found = shadow_credits(config)
    assert found["cocoa_reward"].hindsight_loss == "successor"
    assert found["advantage"].hindsight_loss == "classification"


def test_rewards_without_an_outcome_end_training(tmp_path, monkeypatch):
    build = runs.build_world

    def without_apples(config):
        built = build(config)
        spec = dataclasses.replace(built.spec, reward_values=(0.0, 7.0))
        return dataclasses.replace(built, spec=spec)

    monkeypatch.setattr(runs, "build_world", without_apples)
    words = ["train", *SMALL, *SHORT, "--no-progress", "--train.batches", 2, "--run"]
    with pytest.raises(UserError, match=r"unmatched_rewards is \d+; allowed: 0.*\(0, 7\)"):
        run(*words, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_what_a_metrics_line_must_not_say():
    config = presets.get("cocoa-smoke", "cocoa_feature")
    check = runs._check(config, runs.build_world(config.world))
    assert check({"return": np.ones(2), "bias_db/main": -np.inf, "unmatched_rewards": 0.0}) is None
    assert "entropy is not finite" in check({"entropy": np.array([1.0, np.nan])})
    assert "unknown_states/x is 3" in check({"unknown_states/x": np.array([0.0, 3.0])})
    # Features may tell more outcomes apart than there is room for: that loses some credit only.
    with pytest.warns(UserWarning, match="max_outcomes is 8"):
        assert check({"unmatched_rewards": 2.0}) is None
    assert "unmatched_rewards/cocoa_reward is 1" in check({"unmatched_rewards/cocoa_reward": 1.0})


def test_variance_of_a_tree(tmp_path, capsys):
    tree = ["--world.tree.depth", "2", "--world.tree.actions", "3"]
    output = tmp_path / "variance.json"
    words = ["variance", "--preset", "cocoa-tree", *tree, "--groups", "1", "--output", output]
    assert run(*words) == 0
    report = json.loads(output.read_text())
    assert report == json.loads(capsys.readouterr().out)
    found = report["estimators"]
    assert report["enumerated"]
    assert report["trajectories"] == 9
    # Without overlap HCA+ is REINFORCE, and one group per reward is COCOA-reward.
    for one, other in (("hca_plus", "reinforce"), ("groups_1", "cocoa_reward")):
        assert found[one]["variance_db"] == pytest.approx(found[other]["variance_db"], abs=1e-9)
    assert found["cocoa_reward"]["bias_db"] is None or found["cocoa_reward"]["bias_db"] < -180
    with pytest.raises(UserError, match="exists; choose another name"):
        run(*words)


def test_exact(capsys):
    assert run("exact", "--preset", "cocoa-smoke", "--world.key-to-door.length", "6") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["states"] == 15
    scale = 23 / 6
    expected = 2 * 0.25 * 0.5 * scale + 0.2 * scale / 16
    assert report["value_of_uniform_policy"] == pytest.approx(expected, rel=1e-6)
    bias = report["relative_bias"]
    assert set(bias) == set(METHODS)
    # Returns that a wrong pick cannot reach any more bias HCA-return even with the exact h; the
    # lattice of returns is as exact as the float32 rewards.
    assert bias.pop("hca_return") > 0.01
    assert bias.pop("counterfactual_return") < 1e-6
    assert max(bias.values()) < 1e-9


@pytest.mark.parametrize(
    ("rewards", "missing"),
    [
        (["--world.key-to-door.distractor", "0.1", "0.3141592"], {"hca_return"}),
        (
            ["--world.key-to-door.distractor", "0", "--world.key-to-door.treasure", "0"],
            {"hca_return", "reinforce"},
        ),
    ],
)
def test_exact_without_a_lattice_or_a_reward(capsys, monkeypatch, rewards, missing):
    """Valid JSON, and only the numbers that do not exist are missing."""
    monkeypatch.setattr(measure, "METHODS", ("reinforce", "hca_return"))  # the others take as long
    assert run("exact", "--preset", "cocoa-smoke", "--world.key-to-door.length", "4", *rewards) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert {name for name, bias in report["relative_bias"].items() if bias is None} == missing


def test_every_preset_and_method_is_valid():
    for preset in presets.PRESETS:
        for method in METHODS:
            config = presets.get(preset, method)
            assert config.credit.method == method
        if preset not in ("cocoa-interleaving", "cocoa-shadow-103"):  # their tables take seconds
            validate(presets.get(preset))
    assert presets.entropy_of(23) == pytest.approx(0.03)
    assert presets.entropy_of(103) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--preset", "cocoa-smok"], "did you mean 'cocoa-smoke'"),
        (["train", "--method", "cocoa"], "unknown method 'cocoa'"),
        (["train", "--model", "guessed"], "model is 'guessed'"),
        (["train", "--world.key-to-door.length", "2"], "length=2"),
        (["train", "--train.epsilon", "1.5"], "train.epsilon is 1.5"),
        (["train", "--train.batches", "30"], "train.batches is 30"),
        (["train", "--train.switch-at", "5"], "train.switch_at is 5"),
        (["train", "--credit.trace", "-1"], "credit.trace is -1"),
        (["train", "--seeds", "0"], "seeds is 0"),
        (["train", "--runtime.cpu-devices", "0"], "runtime.cpu_devices is 0; allowed: at least 1"),
        (["train", "--train.entropy", "nan"], "train.entropy is nan"),
        (
            ["train", "--model", "exact", "--world.key-to-door.random-distractors"],
            "no exact tables",
        ),
        (["shadow", "--shadow.methods", "nothing"], "shadow has method 'nothing'"),
        (["shadow", *SWITCH], "train.switch_at is 5; allowed in a shadow run: 0"),
        (["shadow", "--world.key-to-door.random-distractors", *LEARNED], "no exact tables"),
        (
            ["train", *SMALL, "--method", "cocoa_feature", "--credit.features.burn-in", "20"],
            r"burn_in is 20; allowed: below train\.batches \(20\)",
        ),
        (
            ["shadow", *SMALL, "--shadow.methods", "cocoa_feature", *BURN],
            "burn_in is 10; allowed: below train.batches",
        ),
        (
            ["exact", *CUT],
            "horizon=2 is shorter than 0.64 of the episodes",
        ),
        (
            ["train", *ODD, "--method", "hca_return", "--model", "exact"],
            "credit.method has 'hca_return'; allowed: methods without exact returns",
        ),
        (["shadow", *ODD, "--shadow.methods", "hca_return"], "shadow has 'hca_return'"),
        (["variance", *ODD, "--methods", "hca_return"], "methods has 'hca_return'"),
        (
            ["train", *SMALL, "--method", "hca_plus", *SUCCESSOR],
            "credit.hindsight_loss is 'successor'; allowed: .* for hca_plus",
        ),
        (
            ["shadow", *SMALL, *SUCCESSOR, "--shadow.methods", "cocoa_reward", "cocoa_feature"],
            "shadow.methods has 'cocoa_feature', and credit.hindsight_loss is 'successor'; allowed",
        ),
        (["variance", "--method", "hca"], r"method is 'hca'.*--methods"),
        (["exact", "--model", "exact"], "model is 'exact'; allowed for credit exact: not set"),
        (["exact", "--train.epsilon", "0.2"], r"train.epsilon is 0.2; allowed here: 0\.05"),
        (["variance", "--credit.trace", "0.5"], "credit.trace is 0.5; allowed here: 0.9"),
        (["variance", "--train.epsilon", "0.2"], "train.epsilon is 0.2"),
        (["shadow", "--credit.model-rate", "0.1"], "credit.model_rate is 0.1; allowed here: 0.003"),
        (["variance", "--methods", "nothing"], "methods has 'nothing'"),
        (["variance", "--groups", "4"], r"groups is \[4\]"),
    ],
)
def test_bad_input(words, message, tmp_path):
    run_flag = ["--run", tmp_path / "run"] if words[0] in ("train", "shadow") else []
    with pytest.raises(UserError, match=message) as error:
        run(*words, *run_flag)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_reports_need_a_tree_for_groups():
    config = presets.get("cocoa-tree")
    tree = dataclasses.replace(config.world.tree, depth=1, actions=2)
    world = dataclasses.replace(config.world, tree=tree)
    with pytest.raises(UserError, match=r"groups is \[0\]"):
        variance_report(dataclasses.replace(config, world=world), ("reinforce",), (0,))
