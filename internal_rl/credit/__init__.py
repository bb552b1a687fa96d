"""Credit-assignment experiments as runs and commands: `internal-rl credit train|shadow|variance|exact`."""
