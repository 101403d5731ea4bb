"""Every setting of a model, in one dataclass.

`GPTConfig` has all fields of `litgpt.Config` 0.5.13 under the same names and with the same defaults, plus four of ours
at the end. It is plain data: importing this module touches no torch, no litgpt and no file. `GPTConfig.__post_init__`
derives fields from each other; `config_checks` has the rules they must satisfy; `gpt` is the model they describe.

    config = GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=64, vocab_size=256)
    config = GPTConfig.from_name("pythia-14m")
    config = GPTConfig.from_checkpoint(Path("checkpoints/EleutherAI/pythia-14m"))
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.model.config_checks import UNSET, latent_dims, raise_problems, type_problems, value_problems

if TYPE_CHECKING:
    # Given: an int, or None for "derive it". Read: always an int, because __post_init__ fills it in.
    DerivedInt = int
else:
    DerivedInt = int | None

PRETRAINED_FIELDS = ("block_size", "dropout", "tie_embeddings")
"""What may differ from a directory's model_config.yaml without making another model of it."""

OURS = ("dropout", "position_embedding", "tie_embeddings", "init_projection")
"""Fields that litgpt.Config lacks."""


@dataclass(kw_only=True)
class GPTConfig:
    """The architecture of one GPT. Wrong settings raise one `ConfigError` that names all of them.

    Two names change behaviour, as they do upstream: "Gemma" with RMSNorm multiplies by (1 + weight), and "OLMo" with
    LayerNorm has no weight or bias in its norms.
    """

    name: str = ""  # upstream picks prompt style and converter by it
    hf_config: dict[str, Any] = field(default_factory=dict)  # {"org": ..., "name": ...} on the Hugging Face hub
    # --- sizes
    block_size: int = 4096  # longest sequence, tokens
    n_layer: int = 16  # transformer blocks
    n_embd: int = 4096  # width of the residual stream, C
    vocab_size: int = 50254  # ids that the tokenizer can produce
    padding_multiple: int = 512  # the vocabulary is rounded up to a multiple of this
    padded_vocab_size: DerivedInt = UNSET  # rows of wte and lm_head; default: vocab_size rounded up
    # --- block: structure and norms
    norm_class_name: Literal["LayerNorm", "RMSNorm"] = "LayerNorm"  # every norm of the model
    norm_eps: float = 1e-5  # added to the variance
    norm_qk: bool = False  # normalise queries and keys
    norm_qk_type: Literal["default", "olmo2"] = "default"  # per head, or over all heads before they are split
    post_attention_norm: bool = False  # a norm on the attention branch, before it is added
    post_mlp_norm: bool = False  # a norm on the MLP branch, before it is added
    parallel_residual: bool = True  # attention and MLP read the same x, instead of one after the other
    shared_attention_norm: bool = False  # parallel_residual only: both read norm_1(x)
    # --- block: attention
    n_head: int = 32  # query heads
    head_size: DerivedInt = UNSET  # hs; default n_embd / n_head
    n_query_groups: DerivedInt = UNSET  # key/value heads: n_head (default) = MHA, 1 = MQA, between = GQA
    attn_bias: bool = False  # a bias in qkv even though `bias` is false
    attention_scores_scalar: int | None = None  # scores are divided by sqrt(this); default head_size
    sliding_window_size: int | None = None  # a token sees itself and the size - 1 tokens before it
    sliding_window_indices: list[int] | None = None  # per layer, 1 = windowed; default: all 1; a longer list is cut
    attention_logit_softcapping: float | None = None  # scores -> cap * tanh(scores / cap)
    # --- block: rotary position embedding
    rope_base: int = 10000  # longest wavelength is about 2 * pi * base
    rotary_percentage: float = 0.25  # share of each head that is rotated, 0 to 1
    rope_condense_ratio: int = 1  # positions are divided by this
    rope_adjustments: dict[str, Any] | None = None  # linear, llama3 or yarn frequencies: see rope.py
    rope_interleave: bool = False  # the pairs are neighbours (0, 1), (2, 3), ... in the projection's output
    # --- block: MLP
    intermediate_size: DerivedInt = UNSET  # hidden units; default 4 * n_embd; LLaMAMLP needs it given
    moe_intermediate_size: int | None = None  # hidden units of one expert; default intermediate_size
    bias: bool = True  # biases in all linear layers of the blocks
    mlp_class_name: Literal["GptNeoxMLP", "LLaMAMLP", "GemmaMLP", "LLaMAMoE"] = "GptNeoxMLP"
    """In this order: gelu; gated silu; gated gelu; experts of gated silu."""
    gelu_approximate: str = "none"  # "none" or "tanh"
    n_expert: int = 0  # experts of LLaMAMoE
    n_shared_expert: int | None = None  # experts' worth of hidden units that every token uses
    n_expert_groups: int | None = None  # grouped routing (DeepSeek-V3): experts come in this many groups
    n_topk_groups: int | None = None  # grouped routing: groups that one token may use
    n_topk_scores_per_group: int | None = None  # grouped routing: best experts whose scores rank a group
    n_expert_per_token: int = 0  # routed experts that one token uses
    first_k_dense_replace: int | None = None  # the first k layers have a plain LLaMAMLP
    routed_scaling_factor: float = 1.0  # multiplies the routed experts' weights
    norm_topk_prob: bool = False  # grouped routing: weights of one token sum to 1
    # --- before and after the blocks
    scale_embeddings: bool = False  # multiply token embeddings by sqrt(n_embd)
    lm_head_bias: bool = False  # a bias on the logits
    final_logit_softcapping: float | None = None  # logits -> cap * tanh(logits / cap)
    norm_1: bool = True  # a norm before attention
    norm_2: bool = True  # a norm before the MLP
    latent_attention: dict[str, Any] | None = None  # sizes of latent attention: see latent_attention.py
    rope_local_base_freq: float | None = None  # a second rope base for the layers that rope_indices marks
    rope_indices: list[int] | None = None  # per layer, 1 = rope_local_base_freq, 0 = rope_base; default: all 1
    # --- ours
    dropout: float = 0.0
    """Probability in [0, 1) of zeroing an element of the embeddings, the attention weights and each residual branch."""
    position_embedding: Literal["rope", "learned"] = "rope"
    """"learned" adds `transformer.wpe` (block_size, n_embd) and rotates nothing, as GPT-2; LitGPT cannot load it."""
    tie_embeddings: bool = False
    """`lm_head.weight` and `transformer.wte.weight` are one parameter."""
    init_projection: Literal["scaled", "zero"] = "scaled"
    """Start of the projections into the residual stream: normal with 0.02 / sqrt(2 * n_layer), or zero. See init.py."""

    def __post_init__(self) -> None:
        raise_problems(self.name, type_problems(self, _hints()))
        raise_problems(self.name, value_problems(self))
        self.name = self.name or str(self.hf_config.get("name", ""))
        if self.head_size is UNSET:
            self.head_size = self.n_embd // self.n_head
        if self.n_query_groups is UNSET:
            self.n_query_groups = self.n_head
        if self.intermediate_size is UNSET:
            self.intermediate_size = 4 * self.n_embd
        if self.padded_vocab_size is UNSET:
            self.padded_vocab_size = -(-self.vocab_size // self.padding_multiple) * self.padding_multiple
        self.vocab_size = min(self.vocab_size, self.padded_vocab_size)
        if self.sliding_window_size is not None:
            self.sliding_window_indices = (self.sliding_window_indices or [1] * self.n_layer)[: self.n_layer]
        if self.rope_local_base_freq is not None:
            self.rope_indices = (self.rope_indices or [1] * self.n_layer)[: self.n_layer]

    # --- read from the fields

    @property
    def rope_n_elem(self) -> int:
        """Rotated dimensions of each head; 0 with learned positions."""
        if self.position_embedding == "learned":
            return 0
        if self.latent_attention is not None:
            return int(self.latent_attention["qk_rope_head_dim"])
        return int(self.rotary_percentage * self.head_size)

    @property
    def qk_head_dim(self) -> int:
        """Size of one query or key vector (latent attention has its own)."""
        if self.latent_attention is None:
            return self.head_size
        dims = latent_dims(self.latent_attention)
        return dims["qk_rope_head_dim"] + dims["qk_nope_head_dim"]

    @property
    def v_head_dim(self) -> int:
        """Size of one value vector (latent attention has its own)."""
        return self.head_size if self.latent_attention is None else latent_dims(self.latent_attention)["v_head_dim"]

    def window_of(self, layer: int) -> int | None:
        """The sliding window of this layer in tokens, or None for full attention."""
        windowed = self.sliding_window_indices is not None and self.sliding_window_indices[layer]
        return self.sliding_window_size if windowed else None

    def mlp_class_of(self, layer: int) -> str:
        """`mlp_class_name`, except where `first_k_dense_replace` puts a plain LLaMAMLP."""
        dense = self.first_k_dense_replace is not None and layer < self.first_k_dense_replace
        return "LLaMAMLP" if dense else self.mlp_class_name

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """Build from plain values. Raises ConfigError for invalid values and unknown keys, naming the nearest ones."""
        known = [item.name for item in fields(cls)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            near = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
            hints = [f"{key} -> {match[0]}" for key, match in near.items() if match]
            raise ConfigError(
                f"The model has no setting called {', '.join(unknown)}.",
                needed="the fields of GPTConfig in litgpt_core/model/config.py",
                fix="; ".join(hints),
            )
        return cls(**deepcopy(dict(values)))

    @classmethod
    def from_name(cls, name: str, **overrides: Any) -> GPTConfig:
        """One of LitGPT's named configs, e.g. "pythia-14m" or "EleutherAI/pythia-14m", with some fields replaced.

        Unlike upstream, a given `vocab_size` also replaces the named model's `padded_vocab_size`: it is a model for
        another tokenizer. Raises ConfigError with the nearest names if there is none of that name.
        """
        from litgpt_core.model.registry import registry_entry

        values = registry_entry(name)
        if "vocab_size" in overrides:
            values.pop("padded_vocab_size", None)
        return cls.from_dict(values | overrides)

    @classmethod
    def from_checkpoint(cls, directory: Path) -> GPTConfig:
        """Read `model_config.yaml` of a LitGPT directory. Raises CheckpointError if it is absent or broken."""
        path = Path(directory) / "model_config.yaml"
        try:
            values = read_yaml(path)
        except FileNotFoundError:
            raise CheckpointError(
                f"{directory} has no model_config.yaml.",
                needed="a LitGPT checkpoint directory: lit_model.pth, model_config.yaml and a tokenizer",
                fix="ls the directory; a training run keeps its model in runs/<name>/final",
            ) from None
        except (OSError, ParsingError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", needed="a YAML file of model settings") from error
        if not isinstance(values, dict):
            raise CheckpointError(
                f"{path} contains {type(values).__name__}, not settings.", needed="lines such as `n_layer: 2`"
            )
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise CheckpointError(
                f"{path} is not a usable model config. {error.given}", needed=error.needed, fix=error.fix
            ) from error

    def to_yaml_dict(self) -> dict[str, Any]:
        """What `model_config.yaml` should hold: upstream's fields that differ from their default.

        Of ours only `position_embedding` if learned: it changes the function, so upstream must refuse the directory
        instead of reading it wrongly. Dropout, tying and initialisation do not change what a checkpoint computes and
        are left out.
        """
        left_out = {"dropout", "tie_embeddings", "init_projection"}
        values = asdict(self)
        return {
            f.name: values[f.name] for f in fields(self) if f.name not in left_out and values[f.name] != _default(f)
        }

    def to_full_dict(self) -> dict[str, Any]:
        """Every field as plain values, for hyperparameters and records."""
        return asdict(self)


@lru_cache(maxsize=1)
def _hints() -> dict[str, Any]:
    return get_type_hints(GPTConfig)


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def registry_names() -> list[str]:
    """All names that `GPTConfig.from_name` knows, in LitGPT's order."""
    from litgpt_core.model.registry import load_registry

    return [str(entry["name"]) for entry in load_registry()]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The `model` group: fields of `GPTConfig`, alone or on top of a name in LitGPT's registry or of a directory."""

    source: str
    """`fields`: the given fields on GPTConfig's defaults; `registry`: on the registry entry called `name`;
    `pretrained`: on the model_config.yaml of the directory `path`, and only block_size, dropout and tie_embeddings.
    """
    path: str | None = None
    """pretrained only: checkpoint directory or run folder; null: what `init_from` names."""
    fields: dict[str, Any]

    def build(self, *, vocab_size: int) -> GPTConfig:
        """The model's configuration for a tokenizer with `vocab_size` ids.

        `vocab_size` and `padded_vocab_size` follow from the tokenizer, never from YAML or the registry; a pretrained
        model keeps the rows that its embedding has.
        """
        if self.source == "pretrained":
            return self._build_pretrained(vocab_size)
        fields = {k: v for k, v in self.fields.items() if k != "name"}
        if self.source == "registry":
            return GPTConfig.from_name(
                self.fields["name"], **{"padded_vocab_size": None, **fields, "vocab_size": vocab_size}
            )
        return GPTConfig(name=self.fields.get("name", "light"), **{**fields, "vocab_size": vocab_size})

    def _build_pretrained(self, vocab_size: int) -> GPTConfig:
        assert self.path is not None, "check() asks for it"
        there = GPTConfig.from_checkpoint(Path(self.path))
        if vocab_size > there.padded_vocab_size:
            raise ConfigError(
                f"the tokenizer has {vocab_size:,} ids, the model in {self.path} {there.padded_vocab_size:,} rows of "
                "embeddings",
                needed="the tokenizer that belongs to the model",
                fix="tokenizer=pretrained",
            )
        if (longer := self.fields.get("block_size") or 0) > there.block_size:
            raise ConfigError(
                f"model.block_size={longer}: the model in {self.path} has a context of {there.block_size} tokens",
                needed=f"at most {there.block_size}",
                fix=f"model.block_size={there.block_size}",
            )
        return replace(there, **{**self.fields, "vocab_size": vocab_size})
