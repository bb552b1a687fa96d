"""Worlds: pure functions that know nothing of learning."""
