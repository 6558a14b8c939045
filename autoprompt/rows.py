"""Raw rows from files, from Hugging Face datasets by id, and from folders saved by ``datasets``.

Nothing is guessed about encodings: text is UTF-8 or an error that names the byte. No code of a dataset is
ever run.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprompt.errors import DataError, MissingDependency, nearest
from autoprompt.example import Row, raw_key

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_USUAL_NAMES = {
    "train": ("train", "training"),
    "select": ("validation", "dev", "valid", "val", "select"),
    "test": ("test",),
}


def read_source(
    source: str | Mapping[Any, str],
    base: Path,
    *,
    config: str | None = None,
    revision: str | None = None,
    splits: Mapping[Any, str] | None = None,
    target: str | None = None,
) -> dict[str, list[Row]]:
    """Read the rows of a task, by role (train, select, test; one file or one split alone is train).

    Args:
        source: a file, a folder saved by ``datasets``, a dataset id, or a file (or address) per role.
        base: folder that relative paths start from.
        config: configuration of a dataset id.
        revision: commit or branch of a dataset id.
        splits: role to the name of the source's split; the usual names are found where it is not given.
        target: column whose class numbers are turned into the names the dataset declares; None: leave them.
    """
    only_of_datasets = {"config": config, "revision": revision, "splits": splits}
    if isinstance(source, Mapping):
        _refuse_given(only_of_datasets, ", ".join(source.values()))
        return {role: _read_place(place, base) for role, place in source.items()}
    path = base / source
    if path.is_file() or path.suffix in FORMATS:
        _refuse_given(only_of_datasets, source)
        return {"train": read_table(path)}
    loaded = _load_folder(path) if path.is_dir() else _load_id(source, config, revision)
    return _by_role(loaded, source, splits or {}, target)


def _refuse_given(settings: Mapping[str, object], source: str) -> None:
    """Refuse settings that this source has no use for: a split that was asked for would silently not be used."""
    for name in (name for name, value in settings.items() if value):
        raise DataError(
            f"data.{name} is for datasets with named splits, which {source} is not",
            hint="take it out; a file per split is written as source: {train: a.csv, test: b.csv}",
        )


def read_table(path: Path) -> list[Row]:
    """Read a jsonl, json, csv, tsv or parquet file.

    Raises:
        DataError: not there, not UTF-8, not the format its name says, or ragged; names the line.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; allowed: {', '.join(FORMATS)}")
    if not path.is_file():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{nearest(path.name, beside)}")
    if path.suffix == ".parquet":
        return list(_parquet_rows(path))
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start})",
            hint=f"save it as UTF-8, for example: iconv -f {_encoding(raw)} -t utf-8 {path.name} > new{path.suffix}",
        ) from None
    reader = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    rows = list(reader[path.suffix](path, text))
    if not rows:
        raise DataError(f"{path}: holds no rows")
    return rows


def read_worked(path: Path) -> dict[str, str]:
    """Worked answers by the id of their example, as ``autoprompt bootstrap`` writes them.

    Raises:
        DataError: the file cannot be read, or has other columns.
    """
    found: dict[str, str] = {}
    for row in read_table(path):
        if not {"id", "worked"} <= row.values.keys():
            raise DataError(
                f"{row.where}: needs the columns id and worked (got {', '.join(map(str, row.values))})",
                hint="write the file by: autoprompt bootstrap TASK --model MODEL --output FILE",
            )
        found[str(row.values["id"])] = raw_key(row.values["worked"], f"{row.where}: worked")
    return found


def python_rows(given: Any, where: str) -> dict[str, list[Row]]:
    """Rows given as Python dictionaries, in one list or in one per role.

    Raises:
        DataError: an unknown role, or a row that is no dictionary.
    """
    parts = given if isinstance(given, Mapping) else {"train": given}
    check_roles(parts, where)
    tables: dict[str, list[Row]] = {}
    for role, rows in parts.items():
        place = f"{role} row" if len(parts) > 1 else "row"
        tables[role] = []
        for number, row in enumerate(rows, start=1):  # once only: a csv.DictReader cannot be read twice
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{place} {number}: must be a dictionary (got {type(row).__name__})",
                    hint='a table of pandas gives such rows by .to_dict("records")',
                )
            values = {name: plain(value) for name, value in row.items()}
            tables[role].append(Row(values, f"{place} {number}"))
        if not tables[role]:
            raise DataError(f"{where}: split {role!r} holds no rows")
    return tables


def plain(value: Any) -> Any:
    """A number of numpy as Python's own (``0`` for ``np.int64(0)``); all else as it is."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value


def check_roles(given: Mapping[str, Any], where: str) -> None:
    """Refuse keys that are not train, select or test.

    Raises:
        DataError: names the key.
    """
    for role in given:
        if role not in _USUAL_NAMES:
            known = ", ".join(_USUAL_NAMES)
            raise DataError(f"{where}: no split {role!r}{nearest(str(role), _USUAL_NAMES)}; splits: {known}")


def target_column(tables: Mapping[str, Sequence[Row]], where: str) -> str:
    """The usual name of the answer's column, whichever is there.

    Raises:
        DataError: none is; lists the columns.
    """
    first = next((rows[0].values for rows in tables.values() if rows), {})
    for name in ("label", "target", "answer"):
        if name in first:
            return name
    raise DataError(
        f"{where}: which column holds the answer? columns: {', '.join(first) or 'none'}",
        hint="name it: Task.from_rows(rows, target=...)",
    )


def _encoding(raw: bytes) -> str:
    """What a file that is no UTF-8 is most likely written in, as iconv calls it."""
    return "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin1"


def _jsonl_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path.name}:{number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from None
            yield Row(_object(value, f"{path}:{number}"), where)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(values, list):
        raise DataError(
            f"{path}: must hold one list of objects (got {type(values).__name__})",
            hint="give one file per split, or one object a line in a .jsonl file",
        )
    for number, value in enumerate(values, start=1):
        yield Row(_object(value, f"{path} row {number}"), f"{path.name} row {number}")


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: must be an object like {{"text": ...}} (got {type(value).__name__})')
    return value


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    # A tab-separated file quotes nothing: a cell may start with a quotation mark and mean it.
    quotes = path.suffix == ".csv"
    lines = io.StringIO(text, newline="")
    if quotes:
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    limit = csv.field_size_limit()  # 131,072 characters by default, and one for the whole process
    csv.field_size_limit(max(limit, len(text)))
    header: list[str] | None = None
    start = 1  # a quoted cell may span lines: a row is named by its first line
    try:
        for cells in reader:
            if header is None:
                header = cells
                if len(set(header)) < len(header) or not all(name.strip() for name in header):
                    raise DataError(
                        f"{path}:1: column names must differ and not be empty (got {header})",
                        hint=""
                        if header[0]
                        else "pandas writes its row numbers so; leave them out: to_csv(..., index=False)",
                    )
            elif cells:
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}:{start}: ragged: {len(cells)} cells where the header has {len(header)} "
                        f"({', '.join(header)})",
                        hint='put cells that hold "," or line breaks in double quotes'
                        if quotes
                        else "a .tsv cell can hold neither tabs nor line breaks; use .csv or .jsonl",
                    )
                yield Row(dict(zip(header, cells, strict=True)), f"{path.name}:{start}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not readable as {path.suffix[1:]}: {error}",
            hint="double the quotes inside a quoted cell, or use .jsonl",
        ) from None
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise _missing("pyarrow") from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path}: not readable as parquet: {error}") from None
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(values, f"{path.name} row {number}")


def _read_place(place: str, base: Path) -> list[Row]:
    """One file of a source given per role: on disk, or at an address that ``datasets`` can open."""
    if "://" not in place:
        return read_table(base / place)
    ending = Path(place.partition("::")[0]).suffix
    builders = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
    if ending not in builders:
        raise DataError(f"{place}: unknown kind of file {ending!r}; allowed: {', '.join(FORMATS)}")
    datasets = _datasets()
    options = {"sep": "\t", "quoting": csv.QUOTE_NONE} if ending == ".tsv" else {}
    try:
        loaded = datasets.load_dataset(builders[ending], data_files=place, split="train", **options)
    except Exception as error:  # whatever the network and the builders raise: it all means "not loaded"
        raise _not_loaded(place, error) from None
    return [Row(values, f"{place} row {number}") for number, values in enumerate(loaded, start=1)]


def _load_folder(path: Path) -> Any:
    datasets = _datasets()
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(
            f"{path}: is a folder, but not one saved by datasets ({type(error).__name__}: {error})",
            hint="write it with dataset.save_to_disk(folder), or give the files per split",
        ) from None


def _load_id(name: str, config: str | None, revision: str | None) -> Any:
    datasets = _datasets()
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except Exception as error:
        raise _not_loaded(name, error) from None


def _not_loaded(name: str, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return DataError(
        f"dataset {name!r} could not be loaded: {type(error).__name__}: {reason}",
        hint="check the id and the network; or save it once with datasets' save_to_disk and give the folder "
        "as data.source in your own copy of the task",
    )


def _by_role(loaded: Any, source: str, splits: Mapping[str, str], target: str | None) -> dict[str, list[Row]]:
    datasets = _datasets()
    if not isinstance(loaded, datasets.DatasetDict):
        _refuse_given({"splits": {role for role in splits if role != "train"}}, source)
        return {"train": _rows_of(loaded, source, target)}
    names = list(loaded)
    if not splits:
        splits = {
            role: next(name for name in usual if name in names)
            for role, usual in _USUAL_NAMES.items()
            if any(name in names for name in usual)
        }
    if not splits:
        raise DataError(
            f"{source}: has the splits {', '.join(names)}",
            hint="say which is which: data.splits: {train: ..., select: ..., test: ...}",
        )
    for role, name in splits.items():
        if name not in names:
            raise DataError(
                f"{source}: no split {name!r} for {role}{nearest(name, names)}; splits: {', '.join(names)}"
            )
    return {role: _rows_of(loaded[name], f"{source}[{name}]", target) for role, name in splits.items()}


def _rows_of(dataset: Any, where: str, target: str | None) -> list[Row]:
    """Rows of a ``datasets.Dataset``; class numbers of ``target`` become names."""
    datasets = _datasets()
    feature = dataset.features.get(target) if target else None
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    rows = []
    for number, values in enumerate(dataset, start=1):
        raw = values.get(target) if names else None
        if names and isinstance(raw, int) and 0 <= raw < len(names):
            values = {**values, target: names[raw]}
        rows.append(Row(values, f"{where} row {number}"))
    return rows


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise _missing("datasets") from None
    return datasets


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"this data needs the package {package}, which is not installed",
        hint=f"pip install {package}",
    )
