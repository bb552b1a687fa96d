"""Figures of the papers: `python scripts/reproduce.py cocoa-fig3 --help`.

Each sub-command is a function in one module of scripts/reproductions/; it trains what is missing,
then draws ours beside the paper's digitised values.
"""

import internal_rl.runs.all_cores  # noqa: F401 - first, because importing gymnax starts JAX

# isort: split
import sys
from functools import partial

import tyro
from reproductions import (
    coala,
    coala_analysis,
    coala_hawk,
    cocoa,
    credit_abstract,
    mupi,
    ppi,
    ppi_steps,
)

from internal_rl.errors import one_line_errors

SUBCOMMANDS = {
    **cocoa.SUBCOMMANDS,
    **credit_abstract.SUBCOMMANDS,
    **coala.SUBCOMMANDS,
    **coala_analysis.SUBCOMMANDS,
    **coala_hawk.SUBCOMMANDS,
    **mupi.SUBCOMMANDS,
    **ppi.SUBCOMMANDS,
    **ppi_steps.SUBCOMMANDS,
}

if __name__ == "__main__":
    run = partial(tyro.extras.subcommand_cli_from_dict, SUBCOMMANDS)
    sys.exit(one_line_errors("reproduce.py", run))
