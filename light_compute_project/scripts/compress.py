"""`lcp compress` as a script: the same function, in src/litgpt_core/commands/compress.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("compress")
