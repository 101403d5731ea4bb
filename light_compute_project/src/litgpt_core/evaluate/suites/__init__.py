"""Suites of items that need no network: made here from held-out text, from a grammar, or from random tokens.

A suite is a function of its material and a seed. `catalogue` lists them.
"""
