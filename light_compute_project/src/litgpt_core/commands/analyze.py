"""See what a model has learnt: one offline page, pictures and numbers, from a run or a checkpoint directory.

lcp analyze runs/baseline
lcp analyze runs/baseline --prompt "class Matrix:" --only lens,attention,attribution
lcp analyze runs/baseline --prompt "for row in rows:" --against "for col in cols:" --only patching
lcp analyze runs/baseline --checkpoints                    also over the run's checkpoints
lcp analyze runs/baseline --ablate L2H2 --save without     a checkpoint directory without head 2 of layer 2
lcp analyze runs/baseline --names                          every activation that can be recorded
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import MODEL_HELP, CommandParser
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import count


def main(arguments: Sequence[str]) -> int:
    """Parse, analyse (or print names, or save an ablated checkpoint), print the findings."""
    a = _parser().parse_args(arguments)
    from litgpt_core.export.gguf.cached import with_gguf_imported

    model = with_gguf_imported(a.model)
    if a.names:
        from litgpt_core.checkpoint.choice import locate
        from litgpt_core.interpret.names import table
        from litgpt_core.model.config import GPTConfig

        print(table(GPTConfig.from_checkpoint(locate(model))))
        return 0
    if bool(a.ablate) != (a.save is not None):
        raise ConfigError(
            "--ablate and --save belong together", needed="both or none", fix="--ablate L2H2 --save DIRECTORY"
        )
    if a.ablate:
        from litgpt_core.interpret.edit_checkpoint import save_without

        parts = [part for text in a.ablate for part in text.split(",")]
        print(save_without(model, parts, a.save, force=a.force))
        return 0
    from litgpt_core.interpret.analysis import analyze, log_to_wandb

    only = a.only.split(",") if a.only else []
    options = {"prompt": a.prompt, "against": a.against, "text": a.text, "layer": a.layer, "seed": a.seed}
    done = analyze(model, only=only, checkpoints=a.checkpoints, effort=a.effort, out=a.out, **options)
    print(*(f"- {sentence}" for sentence in done.findings), sep="\n")
    assert done.folder is not None
    page = done.folder / "report.html"
    pictures = count(len(done.values["views"]), "picture")
    print(f"{page.as_posix()} ({page.stat().st_size / 1e6:.1f} MB, open it), {pictures}, analysis.json")
    if a.wandb:
        print("on W&B: analysis/report" if log_to_wandb(done, model) else "W&B did not take it")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("analyze", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", help=MODEL_HELP)
    add("--prompt", help="text of the views that look at one (a window of held-out text)")
    add("--against", help="second text of as many tokens, for patching")
    add("--only", metavar="A,B", help="names of views: lens, heads, ablation, ... (all)")
    add("--checkpoints", action="store_true", help="also over the run's checkpoints")
    add("--text", type=Path, metavar="FILE", help="held-out text (the run's validation split)")
    add("--layer", type=int, help="of the sparse autoencoder (the middle one)")
    add("--seed", type=int, default=0, help="of random tokens, lens and autoencoder (0)")
    add("--effort", type=float, default=1.0, help="multiplies how much text is read (1)")
    add("--out", type=Path, metavar="FOLDER", help="where the report goes (analysis/ of the run)")
    add("--wandb", action="store_true", help="put the report into the run on W&B too")
    add("--names", action="store_true", help="print every activation of this model and leave")
    add("--ablate", action="append", default=[], metavar="L2H2", help="head or MLP (L2M) to remove; with --save")
    add("--save", type=Path, metavar="DIRECTORY", help="checkpoint directory to write without them")
    add("--force", action="store_true", help="replace what is at --save, if this project wrote all of it")
    return parser
