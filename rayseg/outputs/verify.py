"""Proof that a label output is whole: every input exactly once, every mask valid, every number as it is counted.

Reads `job.json`, `manifest.json`, the plan and the data, nothing of the images or the model, and changes nothing. One
part at a time is in memory while the next is on its way. What a row must satisfy by itself, `row_checks` says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound, StorageError
from rayseg.formats.ordinals import OrdinalBitmap, to_ranges
from rayseg.formats.parts import COUNT_KEYS, DATA_SCHEMA, PartFooter, count_rows, parse_footer
from rayseg.outputs.plan import GROUP_ROWS, BrokenPlan, PlanInfo, check_part, read_plan
from rayseg.outputs.report import MAX_FAULTS, Fault, Report
from rayseg.outputs.row_checks import Finding, check_rows

Progress = Callable[[int, int], None]


def verify(out: str, progress: Progress | None = None, *, max_faults: int = MAX_FAULTS) -> Report:
    """Check the label output at `out`; the report holds the first `max_faults` faults and the number of all.

    `progress` is called with the rows checked so far and the rows there should be. Raises `JobError` when `out` holds
    no label run, `StorageError` when something cannot be read for a reason that lies elsewhere (denied, unreachable).
    """
    job = _read_json(out, "job.json")
    if job is None:
        raise JobError(f"{out}: no job.json in it: this is not the output of a label run")
    return _Verifier(out, job, _read_json(out, "manifest.json"), max_faults).go(progress)


class _Verifier:
    def __init__(self, out: str, job: dict[str, Any], manifest: dict[str, Any] | None, max_faults: int) -> None:
        self.out = out
        self.manifest = None if manifest is None else _checked_manifest(out, manifest)
        model = (manifest or job).get("model", {})
        self.class_names: Sequence[str] | None = model.get("class_names")
        self.is_pasted = model.get("placement", "paste") == "paste"
        try:
            self.plan = PlanInfo.from_json(job["plan"])
        except (KeyError, TypeError) as error:
            raise JobError(f"{out}: job.json does not describe a plan: {error!r}") from None
        self.done = OrdinalBitmap(self.plan.count)
        self.report = Report(out, manifest is not None, self.plan.count, max_faults=max_faults)

    def go(self, progress: Progress | None) -> Report:
        self._check_plan()
        sizes = self._check_names()
        for name, data in _read_ahead(self.out, sorted(sizes)):
            if isinstance(data, ObjectNotFound):
                self._fault(f"data/{name}", "went away while it was being verified")
            elif isinstance(data, StorageError):
                raise data
            else:
                self._check_part(name, data, progress)
        self._check_missing()
        self._check_manifest()
        return self.report

    def _fault(self, file: str, what: str, row: int | None = None) -> None:
        self.report.add(Fault(file, row, what))

    def _add(self, file: str, first_row: int, finding: Finding) -> None:
        """Keep the first faults of a finding, count the rest."""
        room = self.report.room
        for k, row in enumerate(finding.rows[:room].tolist()):
            self._fault(file, finding.what(k), first_row + row)
        self.report.fault_count += max(0, len(finding.rows) - room)

    # ---- plan and names

    def _check_plan(self) -> None:
        for part in self.plan.parts:
            try:
                check_part(self.out, self.plan, part)
            except BrokenPlan as error:
                self._fault(f"plan/{part.name}", _without_uri(error))

    def _check_names(self) -> dict[str, int]:
        """The parts that count and are there, with their sizes."""
        listed = dict(_listed(self.out))
        if self.manifest is None:
            return {name: size_bytes for name, size_bytes in listed.items() if name.endswith(".parquet")}
        named = {part["name"]: part for part in self.manifest["parts"]}
        for name in sorted(named.keys() - listed.keys()):
            self._fault(f"data/{name}", "is named in manifest.json and not there")
        for name in sorted(listed.keys() - named.keys()):
            self._fault(
                f"data/{name}",
                "not accepted by any epoch; a reader of data/*.parquet would count it twice: run label again to remove it",
            )
        for name, count in Counter(part["name"] for part in self.manifest["parts"]).items():
            if count > 1:
                self._fault("manifest.json", f"names {name} {count} times")
        for name in sorted(named.keys() & listed.keys()):
            if named[name]["size_bytes"] != listed[name]:
                said = named[name]["size_bytes"]
                self._fault(f"data/{name}", f"has {listed[name]} bytes, manifest.json says {said}")
        return {name: listed[name] for name in named if name in listed}

    # ---- parts

    def _check_part(self, name: str, data: bytes, progress: Progress | None) -> None:
        file = f"data/{name}"
        self.report.parts += 1
        try:
            footer = parse_footer(storage.join(self.out, file), data)
            parquet = pq.ParquetFile(pa.BufferReader(data))
        except (StorageError, pa.ArrowException, OSError) as error:
            self._fault(file, _without_uri(error))
            return
        if not parquet.schema_arrow.equals(DATA_SCHEMA):
            self._fault(file, f"has other columns than a label output: {str(parquet.schema_arrow)[:500]}")
            return
        ordinals, counts, first_row = [np.empty(0, np.int64)], dict.fromkeys(COUNT_KEYS, 0), 0
        for group in range(parquet.num_row_groups):
            try:
                table = parquet.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                self._fault(file, f"row group {group} cannot be read: {error}")
                return
            ordinals.append(self._check_rows(file, first_row, table))
            counts = _sum(counts, count_rows(table))
            first_row += len(table)
            self.report.counts = _sum(self.report.counts, count_rows(table))
            if progress:
                progress(self.report.counts["rows"], self.plan.count)
        self._check_footer(file, footer, np.concatenate(ordinals), counts)

    def _check_rows(self, file: str, first_row: int, table: pa.Table) -> np.ndarray:
        """Check the rows of one row group; returns their ordinals (R,) int64."""
        ordinals = table["ordinal"].fill_null(-1).to_numpy()
        planned = (ordinals >= 0) & (ordinals < self.plan.count)
        unplanned = np.flatnonzero(~planned)
        self._add(
            file,
            first_row,
            Finding(unplanned, lambda k: f"ordinal {ordinals[unplanned[k]]}, expected 0 to {self.plan.count - 1}"),
        )
        self._check_once(file, first_row, table, np.flatnonzero(planned))
        self._check_uris(file, first_row, table, np.flatnonzero(planned))
        for finding in check_rows(table, self.class_names, is_pasted=self.is_pasted):
            self._add(file, first_row, finding)
        return ordinals

    def _check_once(self, file: str, first_row: int, table: pa.Table, rows: np.ndarray) -> None:
        ordinals = table["ordinal"].to_numpy()
        again = rows[self.done.add(ordinals[rows])]
        if self.manifest is not None:  # an unfinished run may hold parts that its next driver will not accept
            what = "ordinal {} ({}) has a row already"
            finding = Finding(again, lambda k: what.format(ordinals[again[k]], table["uri"][int(again[k])]))
            self._add(file, first_row, finding)

    def _check_uris(self, file: str, first_row: int, table: pa.Table, rows: np.ndarray) -> None:
        """`uri` of `rows` against the plan's, one row group of the plan at a time."""
        ordinals = table["ordinal"].to_numpy()[rows]
        groups = ordinals // GROUP_ROWS
        for group in np.unique(groups).tolist():
            start = group * GROUP_ROWS
            try:
                plan = read_plan(self.out, self.plan, start, min(start + GROUP_ROWS, self.plan.count))
            except BrokenPlan:
                continue  # said once, by `_check_plan`
            here = np.flatnonzero(groups == group)
            expected = plan["uri"].take(pa.array(ordinals[here] - start)).to_pylist()
            found = table["uri"].take(pa.array(rows[here])).to_pylist()
            for i, (have, want) in enumerate(zip(found, expected, strict=True)):
                if have != want and have is not None:
                    self._fault(file, f"uri is {have!r}, {want!r} in the plan", first_row + int(rows[here[i]]))

    def _check_footer(self, file: str, footer: PartFooter, ordinals: np.ndarray, counts: dict[str, int]) -> None:
        if not np.array_equal(footer.ranges, to_ranges(np.unique(ordinals[ordinals >= 0]))):
            self._fault(file, "its footer covers other ordinals than its rows")
        for key in COUNT_KEYS:
            if footer.counts[key] != counts[key]:
                self._fault(file, f"its footer counts {footer.counts[key]} {key}, its rows {counts[key]}")

    # ---- the whole

    def _check_missing(self) -> None:
        done = self.done.count()
        if self.manifest is None:
            self._fault(
                "manifest.json",
                f"incomplete: {done:,} of {self.plan.count:,} rows done; run the same label command again to go on",
            )
            return
        for chunk in self.done.missing_chunks():
            for start, stop in to_ranges(chunk).tolist():
                which = f"ordinal {start} has" if stop == start + 1 else f"ordinals {start} to {stop - 1} have"
                self._fault("data", f"{which} no row{self._first_uri(start)}")

    def _first_uri(self, ordinal: int) -> str:
        if not self.report.room:
            return ""
        try:
            return f" ({read_plan(self.out, self.plan, ordinal, ordinal + 1)['uri'][0]})"
        except BrokenPlan:
            return ""

    def _check_manifest(self) -> None:
        if self.manifest is None:
            return
        if self.manifest["inputs"] != self.plan.count:
            self._fault("manifest.json", f"counts {self.manifest['inputs']} inputs, the plan has {self.plan.count}")
        for key in ("labelled", "empty", "failed", "instances"):
            if self.manifest[key] != self.report.counts[key]:
                self._fault("manifest.json", f"counts {self.manifest[key]} {key}, the rows {self.report.counts[key]}")


def _checked_manifest(out: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, when it has what verifying needs. Raises `JobError` otherwise."""
    try:
        if all(isinstance(manifest[key], int) for key in ("inputs", "labelled", "empty", "failed", "instances")):
            parts = [(part["name"], part["size_bytes"], part["rows"]) for part in manifest["parts"]]
            if all(isinstance(name, str) for name, _, _ in parts):
                return manifest
    except (KeyError, TypeError):
        pass
    raise JobError(f"{out}: manifest.json is not that of a label run: it lacks counts or parts")


def _read_json(out: str, name: str) -> dict[str, Any] | None:
    """A JSON object below `out`, None where there is none. Raises `JobError` when it is something else."""
    try:
        record = json.loads(storage.read(storage.join(out, name)))
    except ObjectNotFound:
        return None
    except ValueError as error:
        raise JobError(f"{out}: {name} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise JobError(f"{out}: {name} holds {type(record).__name__}, expected an object")
    return record


def _listed(out: str) -> Iterator[tuple[str, int]]:
    """Name below `data/` and size of every object there."""
    folder = storage.join(out, "data")
    try:
        for page in storage.list_pages(folder):
            for entry in page:
                yield entry.uri.rpartition("/data/")[2], entry.size_bytes
    except ObjectNotFound:
        return  # a local folder that was never made


def _read_ahead(out: str, names: Sequence[str]) -> Iterator[tuple[str, bytes | StorageError]]:
    """The bytes of each part, or why there are none; the next one is read meanwhile."""

    def read(name: str) -> bytes | StorageError:
        try:
            return storage.read(storage.join(out, "data", name))
        except StorageError as error:
            return error

    with ThreadPoolExecutor(1, thread_name_prefix="rayseg-verify") as pool:
        coming = pool.submit(read, names[0]) if names else None
        for i, name in enumerate(names):
            assert coming is not None
            data = coming.result()
            coming = pool.submit(read, names[i + 1]) if i + 1 < len(names) else None
            yield name, data


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {key: a[key] + b[key] for key in COUNT_KEYS}


def _without_uri(error: Exception) -> str:
    return str(error).removeprefix(f"{error.uri}: ") if isinstance(error, StorageError) else str(error)
