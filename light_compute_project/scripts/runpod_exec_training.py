"""`lcp runpod` as a script: the same function, in src/litgpt_core/commands/runpod_exec_training.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("runpod")
