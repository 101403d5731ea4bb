"""`lcp analyze` as a script: the same function, in src/litgpt_core/commands/analyze.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("analyze")
