"""One module per sub-command of scripts/benchmark.py."""
