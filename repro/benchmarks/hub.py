"""Data sets of the hub, from its cache on this machine: nothing is downloaded and nobody's code is run.

Only parquet files of a pinned commit are read: the last one in the history of each data set, which stays when it
moves to another owner. ``datasets`` writes them once more, as Arrow files, into its own
cache (``HF_DATASETS_CACHE``); from there rows are read without their images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
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
        ids: what it is or was published under, today's id first; all name the same commits.
        revision: the commit; None where no source tells it: then what ``main`` was when it was downloaded.
        files: what the names of its parquet files begin with.
    """

    ids: tuple[str, ...]
    revision: str | None
    files: str

    @property
    def command(self) -> str:
        """What downloads it."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f'hf download --repo-type dataset {self.ids[0]}{revision} --include "{self.files}-*"'


@dataclass(frozen=True)
class Table:
    """What was read: from which repository, ``where`` (id and commit, for people), and its rows in order."""

    repository: Repository
    where: str
    rows: list[Row]


@dataclass(frozen=True)
class Row:
    """A row without its image.

    Attributes:
        where: id, commit and number, for messages.
        values: columns by name.
        pictured: whether the row has an image.
        encoded: of its image; ``repository`` and ``index`` are of this row.
    """

    where: str
    values: dict[str, Any]
    pictured: bool
    encoded: partial[HubImage]

    def image(self, *parts: str) -> HubImage:
        """The image, read when it is opened; ``parts`` name it as the published image folders do.

        Raises:
            DataError: there is none.
        """
        if not self.pictured:
            raise DataError(f"{self.where}: no image; expected one in every row: download the files again")
        return self.encoded(PurePosixPath(*parts))


def read_hub(*choice: Repository) -> Table:
    """The first of these repositories that is in the cache.

    Raises:
        DataError: none is there, or its files are not whole or not readable as parquet with an image column.
    """
    repository, where, files = _cached(choice)
    table = _read(files, where)
    # Of a row without an image there may be no structure at all, or one that is empty.
    pictured = _valid(table, "bytes")
    for index, (there, named) in enumerate(zip(pictured, _valid(table, "path"), strict=True)):
        if named and not there:
            raise DataError(
                f"{where}, row {index}: 'image' is the path of a file elsewhere; expected the bytes of one: use "
                "the published files, unconverted"
            )
    texts, images = table.remove_columns("image"), table.select_columns("image")
    rows = []
    for index, there in enumerate(pictured):
        try:
            values = texts[index]
        except UnicodeDecodeError:
            raise DataError(
                f"{where}, row {index}: not UTF-8; expected the published text: download it again"
            ) from None
        encoded = partial(HubImage, repository=where, index=index, rows=images)
        rows.append(Row(f"{where}, row {index}", values, there, encoded))
    return Table(repository, where, rows)


def _valid(table: Any, part: str) -> list[bool]:
    """Of each row, whether this part of the column ``image`` is there; images are not read for it."""
    import pyarrow.compute as pc

    return pc.is_valid(pc.struct_field(table.data.column("image"), part)).to_pylist()


def _folder(name: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"


def _cached(choice: tuple[Repository, ...]) -> tuple[Repository, str, list[Path]]:
    """Which repository is in the cache, its id and commit for people, and its files in order."""
    present = []
    for repository in choice:
        for name in repository.ids:
            snapshots = _folder(name) / "snapshots"
            commit = repository.revision or _main(name)
            files = sorted((snapshots / commit).glob(f"{repository.files}-*.parquet")) if commit else []
            if files:
                _check_whole(files, repository)
                return repository, f"{name} at {str(commit)[:7]}", files
            present += [f"{name} at {path.name}" for path in sorted(snapshots.glob("*"))]
    wanted = "\n    or ".join(
        f"{one.files}-*.parquet of {' = '.join(one.ids)} at {one.revision or 'main'}" for one in choice
    )
    others = "".join(f"\nthere is {other}, without these files" for other in dict.fromkeys(present))
    raise DataError(
        f"{constants.HF_HUB_CACHE}, which the suite never fills, has no\n    {wanted}{others}\nto get it, once:\n"
        f"    {choice[0].command}"
    )


def _main(name: str) -> str | None:
    """The commit that was the head of ``main`` when it was downloaded."""
    path = _folder(name) / "refs" / "main"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _check_whole(files: list[Path], repository: Repository) -> None:
    """``DataError`` naming a shard that is missing; names end in -00000-of-00003, a digest may follow."""
    found = [re.search(r"-(\d{5})-of-(\d{5})", path.name) for path in files]
    numbers = [int(match[1]) for match in found if match]
    count = next((int(match[2]) for match in found if match), len(files))
    if missing := sorted(set(range(count)) - set(numbers)):
        raise DataError(
            f"{files[0].parent}: no file {missing[0]:05}-of-{count:05} of {repository.files}; expected {count}: "
            f"the download is not whole, run `{repository.command}` again"
        )


def _read(files: list[Path], where: str) -> Any:
    """The files as a ``datasets.Dataset`` whose images stay encoded."""
    # Takes a second, which only this source of data should cost.
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
