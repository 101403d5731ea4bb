"""What has a model learnt: record activations, read them, change them, and find heads of a known kind.

python light_compute_project/examples/05_interpretability.py                # runs/example, from 01_train_tiny.py
python light_compute_project/examples/05_interpretability.py runs/baseline --prompt "for row in rows:"
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="runs/example")
    parser.add_argument("--prompt", default="Human: ")
    arguments = parser.parse_args()

    import torch

    from litgpt_core import interpret
    from litgpt_core.interpret.ablation import Ablation
    from litgpt_core.interpret.head_scores import head_scores, plain_tokens, repeated_tokens
    from litgpt_core.interpret.lens import lens_log_probs
    from litgpt_core.interpret.names import Component

    subject = interpret.load_subject(arguments.model, prompt=arguments.prompt)
    model, ids = subject.model, subject.prompt_ids()

    # 1. Record: names and patterns of names; `lcp analyze MODEL --names` lists them.
    with interpret.trace(model, ["*.pattern", "0.z"]) as seen:
        logits = model(ids)
    print("recorded:", {name: tuple(value.shape) for name, value in seen.items()})
    print("next token:", repr(subject.token_text(int(logits[0, -1].argmax()))))

    # 2. Read: what would each layer predict?
    for layer, log_probs in enumerate(lens_log_probs(model, ids)):
        best = int(log_probs[0, -1].argmax())
        print(f"after {layer} layers: {subject.token_text(best)!r} with {float(log_probs[0, -1, best].exp()):.0%}")

    # 3. Change: the model without the first head of layer 0.
    def without_first_head(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[..., 0, :] = 0
        return z

    with torch.no_grad(), interpret.trace(model, edit={"0.z": without_first_head}):
        changed = model(ids)
    print(f"largest change of a logit without L0H0: {float((changed - logits).abs().max()):.3f}")

    # 4. Measure: heads that look back for the same token, on random tokens that repeat.
    length = min(96, model.config.block_size)
    tokens, periods = repeated_tokens(plain_tokens(subject), sequences=16, length=length, seed=0)
    scores = head_scores(model, tokens, periods)
    best_score = max(map(max, scores["induction"]["scores"]))
    print(f"best induction score {best_score:.2f}, chance {scores['induction']['chance']:.2f}")

    # 5. And what does a head do for the loss on held-out text?
    if subject.windows is not None:
        delta, error = Ablation(model, subject.some_windows(8)).delta(Component(0, 0))
        print(f"without L0H0 the loss changes by {delta:+.4f} +- {error:.4f} nats per token")

    # 6. Everything at once, as one page.
    print("all of it:  lcp analyze", arguments.model)


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, errors as plain messages
