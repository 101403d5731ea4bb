"""Measure, never mutate: checks, costs, evaluation and reports. This file imports nothing."""
