"""Runs in the queue of a SLURM cluster. This file imports nothing."""
