"""What a run of predictive agents needs of the run that it builds on."""

from agents.learning_aware.predictive import needs_parent
from internal_rl.errors import UserError
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.config_io import leaves
from internal_rl.runs.run_dir import RunDir
from internal_rl.social.config import PredictiveConfig

STAGE = "social_predictive"
INHERITED = (
    "game.name",
    "game.episode_length",
    "embed",
    "hidden",
    "gru_step",
    *(
        f"agents.{name}"
        for name in ("beta", "rollouts", "depth", "past_end", "discount", "identity")
    ),
)
"""Settings that agents and games bring along: what was played, the networks, and how they are acted by."""


def check_parent(config: PredictiveConfig, parent: RunDir | None, seeds: int) -> None:
    """Raise `UserError` unless `parent` is what agents.opponent and agents.start ask for; None is no parent.

    It must be a finished run of the same stage, of at least as many seeds, with equal `INHERITED` settings.
    """
    agents = config.agents
    asks = f"agents.opponent is '{agents.opponent}' and agents.start is '{agents.start}'"
    wanted = needs_parent(agents)
    if parent is None:
        if wanted:
            raise UserError(
                f"parent is missing where {asks}; allowed: a finished run of 'social predictive'"
            )
        return
    if not wanted:
        raise UserError(
            f"parent is {parent.path} where {asks}; allowed: none, or agents.opponent 'frozen' or agents.start 'parent'"
        )
    if parent.stage != STAGE:
        raise UserError(
            f"parent {parent.path} is a run of stage '{parent.stage}'; allowed: stage '{STAGE}'"
        )
    found = parent.load_config(PredictiveConfig)
    phase = Checkpoints(parent).latest_step() or 0
    if phase != found.iterations:
        raise UserError(
            f"parent {parent.path} is at phase {phase} of {found.iterations}; allowed: a finished run (--resume goes on)"
        )
    if seeds > parent.info["num_seeds"]:
        raise UserError(
            f"seeds is {seeds}; allowed with parent {parent.path}: at most {parent.info['num_seeds']}"
        )
    there, here = dict(leaves(found)), dict(leaves(config))
    for name in INHERITED:
        if here[name] != there[name]:
            raise UserError(
                f"{name} is {here[name]!r}; allowed with parent {parent.path}: {there[name]!r}"
            )
