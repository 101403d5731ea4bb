"""A chat session from Python: the loop of scripts/chat.py, with fixed questions.

python light_compute_project/examples/03_chat_loop.py               # runs/example, from 01_train_tiny.py
python light_compute_project/examples/03_chat_loop.py checkpoints/org/name
"""

from __future__ import annotations

import argparse
from pathlib import Path

QUESTIONS = ("What is the capital of Italy?", "Who are you?", "What is two and two?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="runs/example")
    arguments = parser.parse_args()

    from litgpt_core.checkpoint import find_model
    from litgpt_core.generation import Engine, SamplingSettings
    from litgpt_core.generation.chat_session import ChatSession
    from litgpt_core.prompts import load_style

    found = find_model(arguments.model)  # a run's name, a folder, a weights file
    engine = Engine.from_directory(found.directory)
    style = load_style(found.directory)  # None: a base model, which only continues text
    session = ChatSession(engine, style=style)

    for question in QUESTIONS:
        print(f"you:   {question}\nmodel: ", end="")
        for text in session.reply(question, max_new_tokens=40, sampling=SamplingSettings(temperature=0)):
            print(text, end="", flush=True)
        print()

    # The conversation can be used as training data: data=chat data.path=example_chat.jsonl
    Path("example_chat.jsonl").write_text(session.as_json_line(), encoding="utf-8")
    assert session.latest is not None
    print(f"{session.latest.context_used} of {session.block_size} tokens of the context window are used")


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, errors as plain messages
