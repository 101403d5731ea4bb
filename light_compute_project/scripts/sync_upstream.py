"""`lcp sync` as a script: the same function, in src/litgpt_core/commands/sync_upstream.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("sync")
