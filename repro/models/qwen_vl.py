"""Qwen-VL and Qwen-VL-Chat: ViT with a cross-attention resampler, Qwen-7B decoder, tiktoken vocabulary.

The published code of 2023 does not run under today's transformers. The decoder is Qwen2's with three differences,
implemented here: names and fused tensors, log-n attention and dynamic NTK rotary positions beyond ``seq_length``.
After QwenLM/Qwen-VL-Chat: modeling_qwen.py, visual.py, tokenization_qwen.py, qwen_generation_utils.py.
"""

import base64
import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode as byte_letters

from repro.models.assembled import Assembled, ReadsImages
from repro.models.card import CHATML, ModelCard
from repro.models.loading import CheckpointError, Kind, missing, read_json, require
from repro.models.weights import load_renamed, published_tensors

#: Published tensor name -> ours; several names are parts of a fused tensor, along its first axis.
NAMES = {
    "transformer.wte.weight": ("model.embed_tokens.weight",),
    "transformer.h.*.ln_1.weight": ("model.layers.*.input_layernorm.weight",),
    "transformer.h.*.ln_2.weight": ("model.layers.*.post_attention_layernorm.weight",),
    "transformer.h.*.attn.c_attn.weight": tuple(f"model.layers.*.self_attn.{x}_proj.weight" for x in "qkv"),
    "transformer.h.*.attn.c_attn.bias": tuple(f"model.layers.*.self_attn.{x}_proj.bias" for x in "qkv"),
    "transformer.h.*.attn.c_proj.weight": ("model.layers.*.self_attn.o_proj.weight",),
    "transformer.h.*.mlp.w1.weight": ("model.layers.*.mlp.up_proj.weight",),
    "transformer.h.*.mlp.w2.weight": ("model.layers.*.mlp.gate_proj.weight",),
    "transformer.h.*.mlp.c_proj.weight": ("model.layers.*.mlp.down_proj.weight",),
    "transformer.ln_f.weight": ("model.norm.weight",),
    "transformer.visual.*": ("visual.*",),
    "lm_head.weight": ("lm_head.weight",),
}
#: Pieces that text is split into before byte pairs are merged.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: Special tokens, whose ids follow those of the vocabulary file.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
SPECIAL += ["<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"]
#: Queries of the resampler unless the configuration says ``n_queries``, an argument of the published tower.
N_QUERIES = 256
SETTINGS = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"), Kind.COUNT),
    **dict.fromkeys(("num_attention_heads", "kv_channels", "max_position_embeddings"), Kind.COUNT),
    **dict.fromkeys(("layer_norm_epsilon", "rotary_emb_base"), Kind.NUMBER),
    **dict.fromkeys(("use_dynamic_ntk", "use_logn_attn"), Kind.FLAG),
    **{"seq_length": Kind.COUNT, "visual": Kind.OBJECT},
}
VISUAL_SETTINGS = {
    **dict.fromkeys(("image_size", "patch_size", "image_start_id", "n_queries"), Kind.COUNT),
    **dict.fromkeys(("width", "layers", "heads", "output_dim"), Kind.COUNT),
    "mlp_ratio": Kind.NUMBER,
}


def resized(positions: Tensor, n: int) -> Tensor:
    """Position embeddings [m, width] of a square grid, resized to a square grid of n."""
    side, new_side = math.isqrt(len(positions)), math.isqrt(n)
    if side == new_side:
        return positions
    grid = positions.float().view(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2).to(positions.dtype)


class VisionAttention(nn.Module):
    """Self-attention whose fused projection holds query, key and value of each head in turn."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = self.in_proj(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(*split.chunk(3, dim=-1))
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class VisionBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        inner = int(width * mlp_ratio)
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VisionAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, inner), gelu=nn.GELU(), c_proj=nn.Linear(inner, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Resampler(nn.Module):
    """Learned queries read the patches by cross-attention; fixed 2-D positions on both sides."""

    def __init__(self, queries: int, width: int, from_width: int):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.pos_embed = nn.Parameter(torch.zeros(queries, width))
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.kv_proj = nn.Identity() if from_width == width else nn.Linear(from_width, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // 128, batch_first=True)
        self.ln_q, self.ln_kv = norm(width), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln_kv(self.kv_proj(x))
        query = (self.ln_q(self.query) + self.pos_embed).expand(len(x), -1, -1)
        return self.attn(query, x + resized(self.pos_embed, x.shape[1]), x, need_weights=False)[0]


class VisionTower(nn.Module):
    """Pixels [B, 3, H, H] to features [B, n_queries, output_dim], by the settings ``visual`` as published."""

    def __init__(self, visual: Mapping[str, Any]):
        super().__init__()
        width, heads, out = visual["width"], visual["heads"], visual["output_dim"]
        patch = visual["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.zeros(256, width))
        self.ln_pre = nn.LayerNorm(width, eps=1e-6)
        blocks = (VisionBlock(width, heads, visual["mlp_ratio"]) for _ in range(visual["layers"]))
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*blocks)})
        self.attn_pool = Resampler(visual.get("n_queries", N_QUERIES), out, width)
        self.ln_post = nn.LayerNorm(out, eps=1e-6)
        self.proj = nn.Parameter(torch.zeros(out, out))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).mT
        x = self.ln_pre(x + resized(self.positional_embedding, x.shape[1]))
        x = self.attn_pool(self.transformer["resblocks"](x))
        return self.ln_post(x) @ self.proj


class Rotary(nn.Module):
    """Rotary positions whose base grows with prompts beyond ``seq_length``, and the log-n factor of queries.

    The pass that holds position 0 sets the base, which stays for the tokens that follow.
    """

    def __init__(self, width: int, published: Mapping[str, Any]):
        super().__init__()
        self.width, self.base, self.alpha = width, published["rotary_emb_base"], 1.0
        self.seq_length: int = published["seq_length"]
        self.dynamic_ntk, self.log_n = published["use_dynamic_ntk"], published["use_logn_attn"]
        #: Factor [B, T, 1] on the queries of the current pass; None if all are 1.
        self.factor: Tensor | None = None

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(position_ids.max()) + 1
        if self.dynamic_ntk and bool((position_ids == 0).any()):
            self.alpha = max(1.0, 2.0 ** math.ceil(math.log2(longest / self.seq_length) + 1) - 1)
        self.factor = None
        if self.log_n and longest > self.seq_length:
            counted = (position_ids + 1).float().clamp(min=self.seq_length)
            self.factor = (counted.log() / math.log(self.seq_length))[..., None].to(hidden.dtype)
        base = self.base * self.alpha ** (self.width / (self.width - 2))
        steps = torch.arange(0, self.width, 2, device=hidden.device).float() / self.width
        angles = position_ids[..., None].float() / base**steps
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)


class QwenVLForCausalLM(ReadsImages, Qwen2ForCausalLM):
    """The model, from the published ``config.json`` as ``config.published``."""

    def __init__(self, config: Qwen2Config):
        super().__init__(config)
        published = config.published
        self.visual = VisionTower(published["visual"])
        self.model.rotary_emb = Rotary(config.hidden_size // config.num_attention_heads, published)
        for layer in self.model.layers:
            layer.self_attn.q_proj.register_forward_hook(self._scale_query)

    def _scale_query(self, module: nn.Module, args: Any, query: Tensor) -> Tensor:
        factor = self.model.rotary_emb.factor
        return query if factor is None else query * factor.to(query.device)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        return self.visual(pixel_values)


def native_config(published: dict[str, Any]) -> Qwen2Config:
    """The decoder's configuration from the published one."""
    width, heads = published["hidden_size"], published["num_attention_heads"]
    if width // heads != published["kv_channels"] or published.get("rotary_pct", 1.0) != 1.0:
        raise CheckpointError(
            "config.json: kv_channels must be hidden_size / num_attention_heads, rotary_pct 1"
        )
    same = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    settings = {key: published[key] for key in (*same, "max_position_embeddings")} | {
        "intermediate_size": published["intermediate_size"] // 2,
        "num_key_value_heads": heads,
        "rms_norm_eps": published["layer_norm_epsilon"],
        "tie_word_embeddings": False,
        "image_token_id": published["visual"]["image_start_id"] + 2,
        "published": published,
    }
    return Qwen2Config(**settings)


def read_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a ``qwen.tiktoken`` file: lines of a base64 token and its rank."""
    if not path.is_file():
        raise missing(path)
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError as error:
        raise CheckpointError(f"{path}: expected lines of a base64 token and its rank: {error}") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([b]) not in ranks for b in range(256)):
        raise CheckpointError(
            f"{path}: ranks must run from 0 without gaps and every single byte must be a token"
        )
    letters = byte_letters()
    spelled = {token: token.decode("latin-1").translate(letters) for token in ranks}
    pairs = [merge_of(token, ranks, path) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    merges = [(spelled[first], spelled[second]) for first, second in pairs]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    special = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[0]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def merge_of(token: bytes, ranks: dict[bytes, int], path: Path) -> tuple[bytes, bytes]:
    """The two tokens that merge into ``token``: byte pairs are merged by rank until two parts are left.

    Raises CheckpointError if the parts are not in the vocabulary.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in zip(parts, parts[1:], strict=False)]
        lowest = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[lowest] == len(ranks):
            raise CheckpointError(
                f"{path}: the vocabulary holds {token!r}, but not the tokens it is merged from: get the file again"
            )
        parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
    return parts[0], parts[1]


class QwenVL(Assembled):
    """The layout of ``Qwen/Qwen-VL`` and ``Qwen/Qwen-VL-Chat``, weights as safetensors."""

    #: Whether the checkpoint was tuned on ChatML (Qwen-VL-Chat) or continues raw text (Qwen-VL).
    chat: bool
    margins = None

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        file = path / "config.json"
        published = read_json(file)
        if "visual" not in published:
            raise CheckpointError(f"{file} has no 'visual': it is of Qwen, not of Qwen-VL")
        require(published, file, SETTINGS)
        visual = {"n_queries": N_QUERIES} | published["visual"]
        require(visual, file, VISUAL_SETTINGS)
        config, tensors = native_config(published), published_tensors(path)
        model: Any = load_renamed(QwenVLForCausalLM, config, tensors, path, NAMES, dtype, device)
        generation = read_json(path / "generation_config.json")
        lvlm = cls(card, model, read_tokenizer(path / "qwen.tiktoken"), path)
        pad = lvlm.tokenizer.convert_tokens_to_ids("<imgpad>")
        if pad != lvlm.image_token_id:
            raise CheckpointError(
                f"{path / 'qwen.tiktoken'} gives <imgpad> the id {pad}, config.json says {lvlm.image_token_id}: "
                "the two are not of one checkpoint, or the vocabulary is cut off"
            )
        lvlm.side, lvlm.n_image = visual["image_size"], visual["n_queries"]
        lvlm.chat = generation.get("chat_format") == "chatml"
        stop = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"] if lvlm.chat else ["<|endoftext|>"]
        model.generation_config.eos_token_id = lvlm.tokenizer.convert_tokens_to_ids(stop)
        model.generation_config.pad_token_id = lvlm.tokenizer.pad_token_id
        return lvlm

    @property
    def context(self) -> int:
        # Beyond seq_length queries are scaled by their positions, and the base of the rotary positions depends on
        # the prompt's length, which truncation and teacher forcing do not follow.
        return min(super().context, self.model.config.published["seq_length"])

    @property
    def template(self) -> str:
        if not self.chat:
            return self.card.template
        image = f"Picture 1: {self.card.placeholder}\n"
        return CHATML.format(system="You are a helpful assistant.", image=image)

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        image = f"<img>{'<imgpad>' * self.n_image}</img>"
        text = template.format(question=question).replace(self.card.placeholder, image, 1)
        ids = self.tokenizer(text).input_ids
        if len(ids) > self.context:
            raise ValueError(
                f"a prompt of {len(ids)} tokens: beyond {self.context} Qwen-VL scales its queries by their "
                "positions, which truncation does not follow; ask a shorter question"
            )
        return text.replace("<imgpad>", ""), ids
