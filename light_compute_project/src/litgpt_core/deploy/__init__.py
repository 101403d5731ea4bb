"""Runs on machines that others hand out: a SLURM queue, by script or through submitit. This file imports nothing."""
