"""`lcp test_training` as a script: the same function, in src/litgpt_core/commands/test_training.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("test_training")
