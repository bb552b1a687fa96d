"""Benchmarks: `python scripts/benchmark.py env --help`.

Each sub-command is the function `main` of one module in scripts/benchmarks/.
"""

import internal_rl.runs.all_cores  # noqa: F401 - first, because importing gymnax starts JAX

# isort: split
import sys
from functools import partial

import tyro
from benchmarks import credit, env, social, stages

from internal_rl.errors import one_line_errors

SUBCOMMANDS = {
    "env": env.main,
    "credit": credit.main,
    "social": social.main,
    "stages": stages.main,
}

if __name__ == "__main__":
    run = partial(tyro.extras.subcommand_cli_from_dict, SUBCOMMANDS)
    sys.exit(one_line_errors("benchmark.py", run))
