"""Rows <-> Parquet files whose bytes depend on the rows alone.

The writer's name and version, statistics, dictionaries and compression would change the bytes from one
version of Arrow to the next: they are fixed or left out. Format: https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, Row, row_line
from maskloop.errors import StoreError

__all__ = ["RowFileWriter", "read_rows"]

R = TypeVar("R", ImageRow, ObjectRow)
ROWS_AT_ONCE = 2048
CREATED_BY = b"maskloop version 1.0.0 (build 1)"
ARROW_NAME = b"parquet-cpp-arrow version "
MAGIC = b"PAR1"
ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class RowFileWriter(Generic[R]):
    """Writes rows of one kind in the order given, a few thousand in memory at once; used with `with`.

    Args:
        path: the new file.
        kind: the rows' class.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.rows = 0
        self._schema = _schema(kind)
        self._waiting: list[R] = []
        self._digest = hashlib.sha256()
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            version="2.6",
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_version="1.0",
            store_schema=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            _rename_writer(self.path)

    @property
    def digest(self) -> str:
        """SHA-256 of the rows so far, whatever the file's form."""
        return self._digest.hexdigest()

    def write(self, row: R) -> None:
        """Add a row."""
        self._digest.update(row_line(row).encode("ascii") + b"\n")
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [
            pa.array([getattr(row, field.name) for row in self._waiting], field.type)
            for field in self._schema
        ]
        self._writer.write_table(
            pa.Table.from_arrays(columns, schema=self._schema), row_group_size=ROWS_AT_ONCE
        )
        self._waiting.clear()


def read_rows(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the rows of a file, a few thousand in memory at once.

    Raises:
        StoreError: it is missing, damaged, or has other columns.
    """
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            if file.schema_arrow.names != [field.name for field in dataclasses.fields(kind)]:
                raise ValueError(f"columns {', '.join(file.schema_arrow.names)[:200]}")
            for group in range(file.num_row_groups):
                for values in file.read_row_group(group).to_pylist():
                    yield kind(**values)
    except (OSError, ValueError, TypeError, pa.ArrowException) as exc:
        raise StoreError(
            f"snapshot file {path}",
            expected=f"a Parquet file of maskloop's {kind.__name__}s",
            got=f"{type(exc).__name__}: {exc}"[:300],
            remedy="run `maskloop snapshot verify`, and make the snapshot again",
        ) from exc


def _schema(kind: type[Row]) -> pa.Schema:
    hints = typing.get_type_hints(kind)
    return pa.schema([_field(field.name, hints[field.name]) for field in dataclasses.fields(kind)])


def _field(name: str, hint: Any) -> pa.Field:
    kinds = typing.get_args(hint) or (hint,)
    return pa.field(name, ARROW_TYPES[kinds[0]], nullable=type(None) in kinds)


def _rename_writer(path: Path) -> None:
    """Put a fixed text in place of Arrow's name and version in the footer (thrift's compact protocol)."""
    with path.open("r+b") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        start = file.seek(-8 - length, 2)
        footer = file.read(length)
        at = footer.rfind(ARROW_NAME)
        if at < 1 or footer[at - 1] >= 128:
            raise StoreError(
                f"snapshot file {path}",
                expected="Arrow's name in the footer",
                got="none",
                remedy="install pyarrow within the versions that maskloop names",
            )
        end = at + footer[at - 1]
        footer = footer[: at - 1] + bytes([len(CREATED_BY)]) + CREATED_BY + footer[end:]
        file.seek(start)
        file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)
        file.truncate()
