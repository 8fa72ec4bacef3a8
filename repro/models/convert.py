"""Rewrite a checkpoint's pickled weights as safetensors, once.

    python -m repro.models.convert SOURCE OUT

Everything else in this package refuses pickles. This command reads them with torch's restricted unpickler
(``weights_only=True``), which makes tensors and nothing else, one shard at a time.
"""

import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from repro.models.loading import CheckpointError
from repro.models.weights import INDEX, check_whole, run_command, weight_files, weight_map_of, write_shard

#: Suffixes of the files that are copied along with the weights: settings, tokenizers, vocabularies.
COPIED = (".json", ".model", ".tiktoken", ".txt")


def convert(source: Path, out: Path) -> None:
    """Write the checkpoint in ``source`` to ``out``; after an interruption, continue after the last full shard.

    Args:
        source: holds ``pytorch_model.bin``, or ``pytorch_model.bin.index.json`` and its shards.
        out: another directory, created if missing.

    Raises CheckpointError if a file is missing, damaged or holds anything but tensors, or ``out`` is ``source``.
    """
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise CheckpointError(f"{out} is the source, or lies in it: name another directory")
    check_whole(source)
    index = source / "pytorch_model.bin.index.json"
    listed = weight_map_of(index) if index.is_file() else {}
    out.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    size = 0
    shards = weight_files(source, set(listed.values()) or {"pytorch_model.bin"})
    for shard in tqdm(shards, desc="converting", unit="shard"):
        tensors = read_pickle(shard)
        name = shard.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        weight_map |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
        write_shard(out / name, [shard], partial(_separate, tensors))
    if listed:
        if absent := sorted(set(listed) - set(weight_map)):
            raise CheckpointError(
                f"{index} names {', '.join(absent[:5])}, which no shard holds: get it again"
            )
        content = json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map})
        (out / INDEX).write_text(content)
    for file in source.rglob("*"):
        if file.suffix in COPIED and not file.name.endswith(".index.json"):
            copy = out / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name of a pickled weight file; CheckpointError if it is damaged or holds anything else."""
    try:
        # Files of torch before 1.6 are not zip files and cannot be mapped into memory.
        with file.open("rb") as opened:
            zipped = opened.read(4) == b"PK\3\4"
        tensors = torch.load(file, map_location="cpu", mmap=zipped, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged, or holds more than tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise CheckpointError(f"{file} should hold tensors by name")
    return tensors


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies: tensors that share memory cannot be stored."""
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


if __name__ == "__main__":
    run_command(convert, __doc__, "source", "out")
