"""Benchmarks: `python scripts/benchmark.py env --help`.

Each sub-command is the function `main` of one module in scripts/benchmarks/.
"""

import internal_rl.all_cores  # noqa: F401 - first, because importing gymnax starts JAX

# isort: split
import tyro
from benchmarks import credit, env, social, stages

SUBCOMMANDS = {
    "env": env.main,
    "credit": credit.main,
    "social": social.main,
    "stages": stages.main,
}

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(SUBCOMMANDS)
