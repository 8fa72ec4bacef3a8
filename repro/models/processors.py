"""A checkpoint's own processor, without the parts for videos and sound, and with PIL in torchvision's place.

Many processors of transformers bring a part for videos, which needs torchvision, though no image does.
"""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
from transformers.utils.import_utils import is_torchvision_available

from repro.models.loading import PREPARATION, CheckpointError, load_part, read_json

#: Images are prepared with PIL even if torchvision is installed, whose resizing differs.
WITH_PIL = {"backend": "pil"} if hasattr(transformers, "CLIPImageProcessorPil") else {"use_fast": False}
#: Files that may name the processor's class.
NAMING = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


class Absent(dict[str, Any]):
    """Stands for the part of a processor that reads videos or sound, and has no settings."""

    model_input_names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def load_processor(path: Path) -> Any:
    """The processor of a checkpoint directory, of whichever class its files name.

    Raises CheckpointError if the class is unknown, a file is missing, or a library that it needs.
    """
    base = processor_class(path)
    attributes = base.get_attributes() if hasattr(base, "get_attributes") else base.attributes

    def parts(cls: Any, *_: Any, **__: Any) -> list[Any]:
        return [_part(path, name) for name in attributes]

    def accept(self: Any, name: str, part: Any) -> None:
        """Whatever ``parts`` gives is proper."""

    # A class of the same name: some processors look at it.
    own: Any = type(
        base.__name__,
        (base,),
        {
            "_get_arguments_from_pretrained": classmethod(parts),
            "check_argument_for_proper_class": accept,
            "get_attributes": classmethod(lambda cls: list(attributes)),
        },
    )
    try:
        return own.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except CheckpointError:
        raise
    except ImportError as error:
        raise CheckpointError(
            f"the processor of {path} needs a library that is not installed: {error}"
        ) from error
    except Exception as error:  # whatever its class stumbles over
        raise CheckpointError(
            f"cannot read the processor of {path}: {type(error).__name__}: {error}"
        ) from error


def load_image_processor(path: Path) -> Any:
    """How a checkpoint's images are prepared, with PIL; CheckpointError as ``load_part``.

    In some versions of transformers 5 AutoImageProcessor itself needs torchvision, though classes for PIL do not.
    """
    file = path / PREPARATION
    settings = read_json(file) if file.is_file() else {}
    own = getattr(transformers, f"{settings.get('image_processor_type')}Pil", None)
    if own is not None and not is_torchvision_available():
        return load_part(own, path, PREPARATION)
    return load_part(AutoImageProcessor, path, PREPARATION, **WITH_PIL)


def processor_class(path: Path) -> Any:
    """The class that a file of the checkpoint names, else that of its model type."""
    files = [path / name for name in NAMING if (path / name).is_file()]
    named = [read_json(file).get("processor_class") for file in files]
    model_type = read_json(path / "config.json").get("model_type")
    for name in [*named, PROCESSOR_MAPPING_NAMES.get(str(model_type))]:
        if isinstance(name, str) and hasattr(transformers, name):
            return getattr(transformers, name)
    raise CheckpointError(
        f"no processor for {path}: none of {', '.join(NAMING)} names one that transformers "
        f"{transformers.__version__} has, and it has none for model_type {model_type!r}"
    )


def _part(path: Path, name: str) -> Any:
    settings = {"local_files_only": True, "trust_remote_code": False}
    if "tokenizer" in name:
        folder = path if name == "tokenizer" else path / name
        return AutoTokenizer.from_pretrained(folder, **settings)
    if name == "image_processor":
        return load_image_processor(path)
    return Absent()
