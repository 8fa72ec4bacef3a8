"""Rewrite a checkpoint's pickled weights as safetensors, once.

    python -m repro.models.convert SOURCE OUT

Everything else in this package refuses pickles. This command reads them with torch's restricted unpickler
(``weights_only=True``), which makes tensors and nothing else, one shard at a time.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from repro.models.loading import CheckpointError, weight_map_of, written

#: What is copied beside the weights: settings, tokenizers, vocabularies.
BESIDE = (".json", ".model", ".tiktoken", ".txt")


def convert(source: Path, out: Path) -> None:
    """Write the checkpoint in ``source`` to ``out``; one that is killed goes on behind its last whole shard.

    Args:
        source: holds ``pytorch_model.bin``, or ``pytorch_model.bin.index.json`` and its shards.
        out: another directory, made if missing.

    Raises:
        CheckpointError: a file is missing or damaged, holds anything but tensors, or ``out`` is ``source``.
    """
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise CheckpointError(f"{out} is the source, or lies in it: name another directory")
    index = source / "pytorch_model.bin.index.json"
    names = {"pytorch_model.bin"}
    if index.is_file():
        names = set(weight_map_of(index).values())
    out.mkdir(parents=True, exist_ok=True)
    place: dict[str, str] = {}
    size = 0
    for name in tqdm(sorted(names), desc="converting", unit="shard"):
        if Path(name).name != name or not (source / name).is_file():
            raise CheckpointError(f"{source} should hold the weight file {name}, and does not: get it again")
        try:
            # Files of torch before 1.6 are no zip files, and are read as a whole.
            with (source / name).open("rb") as opened:
                zipped = opened.read(4) == b"PK\3\4"
            tensors = torch.load(source / name, map_location="cpu", mmap=zipped, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise CheckpointError(
                f"{source / name} is damaged, or holds more than tensors: {error}"
            ) from error
        if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
            raise CheckpointError(f"{source / name} should hold tensors by name")
        file = name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        place |= dict.fromkeys(tensors, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
        if (made := written(out / file, [source / name])) is not None:
            # Tensors that share memory cannot be stored as such.
            save_file(
                {key: t.clone().contiguous() for key, t in tensors.items()},
                out / "partial",
                metadata=made,
            )
            (out / "partial").replace(out / file)
    if index.is_file():
        if absent := sorted(set(weight_map_of(index)) - set(place)):
            raise CheckpointError(
                f"{index} names {', '.join(absent[:5])}, which no shard holds: get it again"
            )
        content = json.dumps({"metadata": {"total_size": size}, "weight_map": place})
        (out / "model.safetensors.index.json").write_text(content)
    for beside in source.rglob("*"):
        if beside.suffix in BESIDE and not beside.name.endswith(".index.json"):
            copy = out / beside.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(beside, copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        convert(arguments.source, arguments.out)
    except CheckpointError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
