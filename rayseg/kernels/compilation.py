"""How every kernel here is compiled: once per machine type, cached on disk, without the GIL, to IEEE arithmetic.

Baseline. On x86-64 with AVX2, FMA and BMI2 (any server since about 2015) code is generated for `x86-64-v3`, not for the
very CPU it runs on, so one cache serves every node of a mixed cluster and can be baked into an image. Elsewhere, and
where `NUMBA_CPU_NAME` is set or numba has compiled something before, numba's own choice stands. The CPU name and features
are part of every cache key: a node never loads code made for another.

Cache. In `NUMBA_CACHE_DIR` if set, else beside the sources, else in the user's cache folder, else none. A cache that is
there already is used even where it cannot be written. An entry is valid for the exact text of all sources of this
package: numba alone looks only at the file of the kernel itself, and a kernel contains those it calls.

No fastmath anywhere: results are promised to the last bit.
"""

# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import os
import platform
from collections.abc import Callable
from typing import Any, ClassVar

import llvmlite.binding as llvm
import numba
from numba.core import caching, config

_BASELINE = "x86-64-v3"
_BASELINE_FEATURES = ("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` when it is first called with new types; load it from the cache where it was before."""
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # no folder to cache in: compile in every process
        dispatcher._cache = _KernelCache(function)
    return dispatcher


def _choose_baseline() -> None:
    """Let numba generate code for `_BASELINE` where the CPU has it and nobody chose otherwise."""
    settings: Any = config
    if settings.CPU_NAME is not None or platform.machine().lower() not in ("x86_64", "amd64"):
        return
    features = llvm.get_host_cpu_features()
    if all(features.get(name) for name in _BASELINE_FEATURES):
        settings.CPU_NAME, settings.CPU_FEATURES = _BASELINE, ""


@functools.cache
def _package_stamp() -> str:
    """Digest of all sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(os.path.dirname(__file__), "*.py"))):
        with open(path, "rb") as source:
            digest.update(source.read())
    return digest.hexdigest()


class _PackageStamped:
    """Makes a numba cache locator answer with the package's stamp."""

    def get_source_stamp(self) -> str:
        return _package_stamp()


class _ProvidedFolder(_PackageStamped, caching.UserProvidedCacheLocator):
    """`NUMBA_CACHE_DIR`."""


class _InTreeFolder(_PackageStamped, caching.InTreeCacheLocator):
    """`__pycache__` beside the sources, writable or already filled."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        found = super().from_function(py_func, py_file)
        if found is None and glob.glob(os.path.join(os.path.dirname(py_file), "__pycache__", "*.nbi")):
            return cls(py_func, py_file)
        return found


class _UserFolder(_PackageStamped, caching.UserWideCacheLocator):
    """The user's cache folder."""


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar[list[Any]] = [_ProvidedFolder, _InTreeFolder, _UserFolder]


class _KernelCache(caching.FunctionCache):
    """numba's function cache that a read-only folder does not stop."""

    _impl_class = _KernelCacheImpl

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


_choose_baseline()
