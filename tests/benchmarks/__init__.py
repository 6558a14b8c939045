"""Benchmarks of the evaluation harness: ``python -m tests.benchmarks --help``. No test asserts on time."""
