"""Data sets of the hub, from its cache on this machine: nothing is downloaded and no code of theirs is run.

Only parquet files of a pinned commit are read: the last one in the history of each data set, which stays when it
moves to another owner. ``datasets`` writes them again, as Arrow files, into its own cache
(``HF_DATASETS_CACHE``); from there rows are read without their images.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import constants

from repro.benchmarks.benchmark import DataError, HubImage

#: What ``--data`` takes in place of a directory.
HUB = Path("hub:")


@dataclass(frozen=True)
class Repository:
    """One split of a data set on the hub.

    Attributes:
        ids: under which it is or was published, today's first; all name the same commits.
        revision: the commit; None if no source names it: then what ``main`` was when it was downloaded.
        files: prefix of the names of its parquet files.
    """

    ids: tuple[str, ...]
    revision: str | None
    files: str

    @property
    def command(self) -> str:
        """The command that downloads it."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f'hf download --repo-type dataset {self.ids[0]}{revision} --include "{self.files}-*"'


@dataclass(frozen=True)
class Row:
    """A row without its image.

    Attributes:
        id: unique in the repository: the prefix of its files, and the number of the row.
        where: id and commit of the repository, and the number, for messages.
        values: columns by name.
        encoded: the image, unnamed; None if there is none.
    """

    id: str
    where: str
    values: dict[str, Any]
    encoded: HubImage | None

    def image(self, *parts: str) -> HubImage:
        """The image, named as in the published image folders; ``DataError`` if there is none."""
        if self.encoded is None:
            raise DataError(f"{self.where}: no image; expected one in every row: download the files again")
        return replace(self.encoded, path=PurePosixPath(*parts))


def read_hub(*choice: Repository) -> tuple[str, list[Row]]:
    """Id and commit, for people, of the first of these repositories that is in the cache, and its rows in order.

    Raises:
        DataError: none is there, or its files are incomplete or not readable as parquet with an image column.
    """
    repository, where, files = _cached(choice)
    table = _read(files, where)
    # A row without an image may have no structure at all, or an empty one.
    has_bytes, has_path = _valid(table, "bytes"), _valid(table, "path")
    texts, images = table.remove_columns("image"), table.select_columns("image")
    rows = []
    for index, has_image in enumerate(has_bytes):
        place = f"{where}, row {index}"
        if has_path[index] and not has_image:
            raise DataError(
                f"{place}: 'image' is the path of a file; expected its bytes: use the published files"
            )
        try:
            values = texts[index]
        except UnicodeDecodeError:
            raise DataError(f"{place}: not UTF-8; expected the published text: download it again") from None
        image = HubImage(PurePosixPath(), where, index, images) if has_image else None
        rows.append(Row(f"{repository.files}-{index}", place, values, image))
    return where, rows


def _valid(table: Any, part: str) -> list[bool]:
    """For each row, whether it has this part of the column ``image``; no image is read for that."""
    import pyarrow.compute as pc

    return pc.is_valid(pc.struct_field(table.data.column("image"), part)).to_pylist()


def _cached(choice: tuple[Repository, ...]) -> tuple[Repository, str, list[Path]]:
    """The repository that is in the cache, its id and commit for people, and its files in order."""
    present = []
    for repository in choice:
        for name in repository.ids:
            folder = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
            snapshots, main = folder / "snapshots", folder / "refs" / "main"
            # Without a revision, the head of main when it was downloaded.
            commit = repository.revision or (main.read_text("utf-8").strip() if main.is_file() else "")
            files = sorted((snapshots / commit).glob(f"{repository.files}-*.parquet")) if commit else []
            if files:
                _check_complete(files, repository)
                return repository, f"{name} at {commit[:7]}", files
            present += [f"{name} at {path.name}" for path in sorted(snapshots.glob("*"))]
    wanted = "\n    or ".join(
        f"{repository.files}-*.parquet of {' = '.join(repository.ids)} at {repository.revision or 'main'}"
        for repository in choice
    )
    others = "".join(f"\nthere is {other}, without these files" for other in dict.fromkeys(present))
    raise DataError(
        f"{constants.HF_HUB_CACHE}, which the suite never fills, has no\n    {wanted}{others}\nto get it, once:\n"
        f"    {choice[0].command}"
    )


def _check_complete(files: list[Path], repository: Repository) -> None:
    """``DataError`` naming a missing shard; names end in -00000-of-00003, a digest may follow."""
    matches = [match for path in files if (match := re.search(r"-(\d{5})-of-(\d{5})", path.name))]
    count = int(matches[0][2]) if matches else len(files)
    if missing := sorted(set(range(count)) - {int(match[1]) for match in matches}):
        raise DataError(
            f"{files[0].parent}: no file {missing[0]:05}-of-{count:05} of {repository.files}; expected {count}: "
            f"the download is incomplete, run `{repository.command}` again"
        )


def _read(files: list[Path], where: str) -> Any:
    """The files as a ``datasets.Dataset`` whose images stay encoded."""
    # Takes a second, which only data of the hub should cost.
    import datasets
    import pyarrow as pa

    try:
        table = datasets.Dataset.from_parquet([str(path) for path in files])
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError) as error:
        reason = f"{error.__cause__ or error}".splitlines()[0]
        raise DataError(
            f"{where}: cannot read {files[0].parent} ({reason}); expected whole parquet files with the same "
            "columns: delete the folder and download it again"
        ) from None
    column = table.data.schema.field("image").type if "image" in table.column_names else pa.null()
    if not pa.types.is_struct(column) or min(map(column.get_field_index, ("bytes", "path"))) < 0:
        raise DataError(
            f"{where}: columns {', '.join(table.column_names)}; expected 'image' with the bytes of a file: "
            "use the published files, unconverted"
        )
    return table.cast_column("image", datasets.Image(decode=False))
