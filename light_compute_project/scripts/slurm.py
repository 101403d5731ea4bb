"""`lcp slurm` as a script: the same function, in src/litgpt_core/commands/slurm.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("slurm")
