"""Embedded twins that plan ahead, as `internal-rl social embedded` reports them."""

from dataclasses import replace

import pytest

from internal_rl.commands.main import main
from internal_rl.social.config import EmbeddedConfig
from internal_rl.social.embedded import embedded_report

PLANNERS = EmbeddedConfig(policies="memory_one", rounds=1, discount=0.9, horizon=4)


@pytest.mark.parametrize(
    ("depth", "threshold"), [(1, 0.4814), (2, 0.4814), (3, 0.3571), (4, 0.4259)]
)
def test_planning_depth_moves_the_threshold_as_measured(depth, threshold):
    """The smallest α that cooperates first, of docs/results/2026-11-mupi.md; looking further is not always better."""
    alphas = (threshold - 1e-3, threshold + 1e-3)
    rows = embedded_report(replace(PLANNERS, alphas=alphas, depth=depth))["rows"]
    assert [row["embedded"] for row in rows] == ["D", "C"]
    assert [row["first_cooperation"] for row in rows] == [None, 0]
    assert {row["decoupled"] for row in rows} == {row["causal"] for row in rows} == {"D"}
    assert {row["closed_form"] for row in rows} == {None}


def test_among_sequences_looking_ahead_changes_nothing():
    config = EmbeddedConfig(alphas=(0.6, 0.5, 0.3), rounds=4, depth=2, discount=0.9, horizon=3)
    report = embedded_report(config)
    assert [row["embedded"] for row in report["rows"]] == ["CCCC", "DCCC", "DDCC"]
    assert [row["closed_form"] for row in report["rows"]] == ["CCCC", "DCCC", "DDCC"]
    assert {row["causal"] for row in report["rows"]} == {"DDDD"}
    # Seven rounds of sequences at most, one of which is looked ahead at.
    longer = replace(config, alphas=(0.6,), rounds=12, horizon=2)
    assert embedded_report(longer)["explicit_rounds"] == 6


def test_planners_give_up_their_alibi():
    """Half of the mass on always-defect: cooperating tells a copy from it, which myopic twins never do at α = 0.3."""
    config = EmbeddedConfig(alphas=(0.3,), policies="half_defect", rounds=4)
    myopic = embedded_report(config)["rows"][0]
    assert myopic["embedded"] == myopic["closed_form"] == "DDDD"
    planner = embedded_report(replace(config, depth=2, discount=0.9, horizon=3))["rows"][0]
    assert planner["embedded"] == "DDCC"
    assert planner["closed_form"] is None
    assert planner["first_cooperation"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--depth 2", "depth is 2; allowed: 1 to the horizon, 1"),
        ("--depth 0", "depth is 0; allowed: 1 to the horizon, 1"),
        ("--horizon 6 --discount 0.9", "horizon is 6; allowed: 1 to 5"),
        ("--horizon 0", "horizon is 0; allowed: 1 to 5"),
        ("--horizon 3", "discount is 0.0 with horizon 3; allowed: above 0 and below 1"),
        (
            "--horizon 3 --discount 1",
            "discount is 1.0 with horizon 3; allowed: above 0 and below 1",
        ),
        ("--discount 0.5", "discount is 0.5 with horizon 1; allowed: 0"),
        ("--discount nan", "discount is nan; allowed: finite numbers"),
        ("--tremble 0", "tremble is 0.0; allowed: above 0 and below 0.5"),
    ],
)
def test_bad_plans(flags, message, capsys):
    assert main(["social", "embedded", *flags.split()]) == 2
    assert message in capsys.readouterr().err
