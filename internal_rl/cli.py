"""The command line: `internal-rl pretrain|discover|reinforce|evaluate|render|export|demo`.

Each command is a dataclass (its fields are the flags, its docstring the help) and a function in `internal_rl.pipeline`,
`internal_rl.demo` or `internal_rl.report`. A mistake of the user's ends in one line on stderr and exit code 2.
"""

import internal_rl.all_cores  # noqa: F401 - first, because importing gymnax starts JAX

# isort: split
import dataclasses
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

import configs
from agents.credit.config import SampledMethod
from internal_rl.config import (
    DiscoverConfig,
    EnvConfig,
    EvaluateConfig,
    MetacontrollerConfig,
    ModelConfig,
    PretrainConfig,
    ReinforceConfig,
    RuntimeConfig,
)
from internal_rl.errors import UserError, nearest, one_line_errors
from internal_rl.flags import (
    RunFlags,
    check_output,
    check_resumed,
    flag,
    report,
    resumed_run,
    run_flags,
)

DEFAULT_PRESET = "gridworld-laptop"
FAMILIES = {"credit": "internal_rl.credit.cli", "social": "internal_rl.social.cli"}
"""Commands with commands of their own: modules with `main(argv) -> exit code`, `parse(name, argv)` and `COMMANDS`."""


@dataclass
class Pretrain(RunFlags):
    """Stage 1: pretrain a base model on unlabelled expert behaviour."""

    preset: str = DEFAULT_PRESET
    """Named config to start from; the flags below change single fields."""
    seed: int = 0
    """The one seed of the run."""
    env: EnvConfig = field(default_factory=EnvConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Discover(RunFlags):
    """Stage 2: discover abstract actions with a metacontroller on a frozen base model."""

    base: Path = Path()
    """Pretrain run to build on."""
    base_seed: int = 0
    """Which of its seeds."""
    preset: str = ""
    """Preset for this stage's settings; default: those stored in --base."""
    seed: int = 0
    """The one seed of the run."""
    metacontroller: MetacontrollerConfig = field(default_factory=MetacontrollerConfig)
    discover: DiscoverConfig = field(default_factory=DiscoverConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Reinforce(RunFlags):
    """Stage 3: RL on the held-out tasks, in code space (internal) or on raw actions."""

    parent: Path = Path()
    """Discover run (method internal) or pretrain run (method raw_action) to build on."""
    parent_seed: int = 0
    """Which of its seeds."""
    preset: str = ""
    """Preset for this stage's settings; default: those stored in --parent."""
    seed: int = 0
    """The one seed of the run."""
    heldout_tasks: tuple[str, ...] = ()
    """Tasks to train on instead of the config's held-out tasks, e.g. 0123."""
    credit: SampledMethod | None = None
    """How codes are credited with later rewards (sets reinforce.credit.method); internal RL only."""
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Evaluate:
    """Stage 4: success on fresh layouts. What is measured follows from the stage of --run."""

    run: Path
    """Run of any stage. pretrain: uncontrolled model and labelled-controller steering. discover: prior sampling and
    switch alignment. reinforce: the trained policies."""
    tasks: tuple[str, ...] = ()
    """Any task set, e.g. 0123 1032; default: the config's held-out tasks."""
    output: Path | None = None
    """JSON file to write; default: evaluation.json inside --run."""
    overwrite: bool = False
    """Replace an existing output file."""
    seeds: int = 3
    """Seeds of prior sampling and of steering (a trained run brings its own)."""
    seed_index: int = 0
    """Which seed of a pretrain or discover run is driven by them (all seeds of a reinforce run are evaluated)."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass
class Render:
    """Draw one episode as a GIF and three expert trajectories with β over the true sub-goals."""

    run: Path
    """Discover or reinforce run."""
    output: Path | None = None
    """Folder for the pictures; default: figures/ inside --run."""
    seed: int = 0
    """Seed of the layouts."""
    seed_index: int = 0
    """Which seed of the run."""
    overwrite: bool = False
    """Replace existing pictures."""


@dataclass
class Export:
    """Write trained weights as safetensors with a JSON description."""

    run: Path
    """Run of any stage."""
    output: Path
    """Safetensors file to write; its description goes beside it, with suffix .json."""
    seed_index: int = 0
    """Which seed of the run."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass
class Demo:
    """All four stages on the held-out task, with baselines, figures and a report."""

    run: Path = Path("runs/demo")
    """Folder for the demo's run directories, summary.json and report.md."""
    preset: str = DEFAULT_PRESET
    """Named config."""
    scratch: bool = False
    """Train base model and metacontroller too, instead of starting from those that come with the package."""
    seeds: int = 3
    """RL seeds."""
    resume: bool = False
    """Go on after an interruption."""
    overwrite: bool = False
    """Replace an existing demo folder."""
    progress: bool = True
    """Show progress bars."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return one_line_errors("internal-rl", lambda: _dispatch(argv))


def _dispatch(argv: list[str]) -> int:
    from internal_rl.runs.cache import enable_compilation_cache

    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name in FAMILIES:
        return importlib.import_module(FAMILIES[name]).main(rest)
    if name not in _COMMANDS:
        raise UserError(
            f"unknown command '{name}'; did you mean '{nearest(name, (*_COMMANDS, *FAMILIES))}'? "
            f"allowed: {', '.join((*_COMMANDS, *FAMILIES))}"
        )
    command, execute = _COMMANDS[name]
    default = _defaults(command, rest)
    try:
        args = tyro.cli(
            command,
            prog=f"internal-rl {name}",
            args=rest,
            default=default,
            description=command.__doc__,
        )
    except SystemExit as stop:  # tyro has printed help or what is wrong with the flags
        return int(stop.code or 0)
    enable_compilation_cache()
    execute(args)
    return 0


def _usage() -> str:
    lines = [
        "usage: internal-rl COMMAND [flags]; internal-rl COMMAND --help explains every flag",
        "",
    ]
    for name, (command, _) in _COMMANDS.items():
        lines.append(f"  {name:10} {(command.__doc__ or '').splitlines()[0]}")
    lines += [f"  {name:10} a family of commands: internal-rl {name} --help" for name in FAMILIES]
    return "\n".join([*lines, "", f"presets: {', '.join(configs.names())}"])


def _defaults(command: type, argv: Sequence[str]):
    """A command's defaults: fields of the named preset, of the run that it builds on, or of the run that it resumes."""
    resumed = resumed_run(argv) if issubclass(command, RunFlags) else None
    if "--help" in argv or "-h" in argv:
        config = configs.get(flag(argv, "preset") or DEFAULT_PRESET)
    elif resumed:
        config = resumed.config
    elif command in (Discover, Reinforce, Evaluate):
        from internal_rl.pipeline import STAGES
        from internal_rl.runs.run_dir import open_run

        name = {Discover: "base", Reinforce: "parent", Evaluate: "run"}[command]
        source = flag(argv, name)
        if source is None:
            raise UserError(
                f"--{name} is missing; internal-rl {command.__name__.lower()} needs the run directory it builds on"
            )
        preset = flag(argv, "preset")
        if preset:
            config = configs.get(preset)
        else:
            run = open_run(source)
            if run.stage not in STAGES:  # the config of another family would only look damaged
                raise UserError(
                    f"--{name}: {source} is a run of stage '{run.stage}'; expected one of {', '.join(STAGES)}"
                )
            config = run.config
        if flag(argv, "reinforce.method") == "raw_action":
            config = dataclasses.replace(config, reinforce=config.raw_action)
    else:
        config = configs.get(flag(argv, "preset") or DEFAULT_PRESET)
    required = {"run": tyro.MISSING, "output": tyro.MISSING}
    values = {}
    for f in dataclasses.fields(command):
        if hasattr(config, f.name):
            values[f.name] = getattr(config, f.name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            values[f.name] = required[f.name]
    if resumed and command is Pretrain:
        values["preset"] = config.name
    return command(**values)


def _pretrain(args: Pretrain) -> None:
    from internal_rl.pipeline import run_pretrain
    from internal_rl.runs.run_dir import open_run

    config = open_run(args.run, "pretrain").config if args.resume else configs.get(args.preset)
    config = dataclasses.replace(
        config,
        **{name: getattr(args, name) for name in ("seed", "env", "model", "pretrain", "runtime")},
    )
    check_resumed(args, config, args.preset)
    run = run_pretrain(config, args.run, **run_flags(args))
    print(f"pretrain: done, in {run.path}")


def _discover(args: Discover) -> None:
    from internal_rl.pipeline import run_discover
    from internal_rl.runs.run_dir import open_run

    if args.resume:
        run = open_run(args.run, "discover")
        base, config = run.parent("pretrain"), run.config
    else:
        base = open_run(args.base, "pretrain")
        config = base.config
    config = dataclasses.replace(
        config,
        **{n: getattr(args, n) for n in ("seed", "metacontroller", "discover", "runtime")},
    )
    check_resumed(args, config)
    run = run_discover(config, args.run, base, base_seed=args.base_seed, **run_flags(args))
    print(f"discover: done, in {run.path}")


def _reinforce(args: Reinforce) -> None:
    from internal_rl.pipeline import run_reinforce
    from internal_rl.runs.run_dir import open_run

    if args.resume:
        run = open_run(args.run, "reinforce")
        config = run.config
        stage = "discover" if config.reinforce.method == "internal" else "pretrain"
        parent = run.parent(stage)
    else:
        stage = "discover" if args.reinforce.method == "internal" else "pretrain"
        parent = open_run(args.parent, stage)
        config = parent.config
    config = dataclasses.replace(
        config, **{n: getattr(args, n) for n in ("seed", "reinforce", "runtime")}
    )
    if args.credit is not None:
        credit = dataclasses.replace(args.reinforce.credit, method=args.credit)
        rl = dataclasses.replace(args.reinforce, credit=credit)
        config = dataclasses.replace(config, reinforce=rl)
    if args.heldout_tasks:
        env = dataclasses.replace(config.env, heldout_tasks=args.heldout_tasks)
        config = dataclasses.replace(config, env=env)
    check_resumed(args, config)
    run = run_reinforce(config, args.run, parent, parent_seed=args.parent_seed, **run_flags(args))
    print(f"reinforce: done, in {run.path}")


def _evaluate(args: Evaluate) -> None:
    from internal_rl.report import evaluate_run
    from internal_rl.runs.run_dir import open_run
    from internal_rl.validate import validate

    run = open_run(args.run)
    output = args.output or run.path / "evaluation.json"
    check_output(output, args.overwrite)
    if args.seeds < 1:
        raise UserError(f"seeds is {args.seeds}; allowed: at least 1")
    tasks = args.tasks or run.config.env.heldout_tasks
    env = dataclasses.replace(run.config.env, heldout_tasks=tasks)
    config = dataclasses.replace(run.config, env=env, evaluate=args.evaluate)
    validate(config, run.stage)
    result = evaluate_run(run, config, tasks, args.seeds, args.seed_index)
    report(result, output)


def _render(args: Render) -> None:
    from internal_rl.report import render_run
    from internal_rl.runs.run_dir import open_run

    run = open_run(args.run)
    folder = args.output or run.figures_dir
    for name in ("episode.gif", "switching.png"):
        check_output(folder / name, args.overwrite)
    for path in render_run(run, folder, seed=args.seed, seed_index=args.seed_index):
        print(path)


def _export(args: Export) -> None:
    from internal_rl.pipeline import export_run
    from internal_rl.runs.run_dir import open_run

    run = open_run(args.run)
    if args.output.suffix == ".json":
        raise UserError(
            f"output is {args.output}; allowed: another suffix, since .json is for the description beside the weights"
        )
    for file in (args.output, args.output.with_suffix(".json")):
        check_output(file, args.overwrite)
    export_run(run, args.output, args.seed_index)
    print(args.output)


def _demo(args: Demo) -> None:
    from internal_rl.demo import run_demo

    run_demo(
        configs.get(args.preset),
        args.run,
        scratch=args.scratch,
        seeds=args.seeds,
        resume=args.resume,
        overwrite=args.overwrite,
        progress=args.progress,
    )


_COMMANDS: dict[str, tuple[type, Callable]] = {
    "pretrain": (Pretrain, _pretrain),
    "discover": (Discover, _discover),
    "reinforce": (Reinforce, _reinforce),
    "evaluate": (Evaluate, _evaluate),
    "render": (Render, _render),
    "export": (Export, _export),
    "demo": (Demo, _demo),
}

if __name__ == "__main__":
    sys.exit(main())
