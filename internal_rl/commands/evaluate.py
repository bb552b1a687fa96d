"""`internal-rl evaluate`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from internal_rl.commands.flags import check_output, filled, parent_config, report
from internal_rl.config import EvaluateConfig
from internal_rl.errors import UserError


@dataclass
class Command:
    """Stage 4: success on fresh starts. What is measured follows from the stage of --run."""

    run: Path
    """Run of any stage. pretrain: uncontrolled model and labelled-controller steering. discover: prior sampling and
    switch alignment. reinforce: the trained policies."""
    tasks: tuple[str, ...] = ()
    """Any task set, e.g. 0123 1032; default: the config's held-out tasks."""
    layers: tuple[str, ...] = ()
    """Pretrain runs: steer at these layers of the base model as well, to see where to control it; all: at every layer."""
    output: Path | None = None
    """JSON file to write; default: evaluation.json inside --run."""
    overwrite: bool = False
    """Replace an existing output file."""
    seeds: int = 3
    """Seeds of prior sampling and of steering (a trained run brings its own)."""
    seed_index: int = 0
    """Which seed of a pretrain or discover run is driven by them (all seeds of a reinforce run are evaluated)."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Settings of the evaluation that --run was started with."""
    return filled(Command, parent_config(argv, "evaluate", "run"))


def run(args: Command) -> None:
    """Evaluate, print and write the result."""
    from internal_rl.analysis.report import evaluate_run
    from internal_rl.runs.run_dir import open_run
    from internal_rl.validate import validate

    opened = open_run(args.run)
    output = args.output or opened.path / "evaluation.json"
    check_output(output, args.overwrite)
    if args.seeds < 1:
        raise UserError(f"seeds is {args.seeds}; allowed: at least 1")
    tasks = args.tasks or opened.config.env.heldout_tasks
    env = dataclasses.replace(opened.config.env, heldout_tasks=tasks)
    config = dataclasses.replace(opened.config, env=env, evaluate=args.evaluate)
    validate(config, opened.stage)
    layers = _layers(args.layers, config, opened.stage)
    report(evaluate_run(opened, config, tasks, args.seeds, args.seed_index, layers), output)


def _layers(asked: Sequence[str], config, stage: str) -> tuple[int, ...]:
    """Layers to steer at.

    Raises:
        UserError: the base model has no such layer, or the world no sub-goals to steer to.
    """
    if not asked:
        return ()
    from internal_rl import build

    if stage != "pretrain":
        raise UserError(f"layers is {' '.join(asked)}; allowed for a run of stage '{stage}': none")
    world = build.heldout_world(config.env)
    if not world.num_goals:
        raise UserError(f"layers is {' '.join(asked)}; allowed in a world without sub-goals: none")
    depth = build.base_network(config.model, world).depth
    if list(asked) == ["all"]:
        return tuple(range(depth + 1))
    for word in asked:
        if not (word.isdecimal() and int(word) <= depth):
            raise UserError(
                f"layers is {word!r}; allowed: all, or numbers 0 to the depth ({depth})"
            )
    return tuple(int(word) for word in asked)
