"""`lcp deploy` as a script: the same function, in src/litgpt_core/commands/multi_region_deploy.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("deploy")
