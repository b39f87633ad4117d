"""Compiles the modules of the hot path with mypyc, where there is a C compiler; without one they run as they are.

Everything else about the package is in pyproject.toml. ``FORKAST_COMPILE=0`` leaves the compiling out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).parent
LIBRARY = "forkast_streams.compiled_engine"
sys.path.insert(0, str(ROOT))

from forkast_streams import compiled  # noqa: E402 - the folder must be found first

# Before anything is read: whoever edits a source meanwhile has to compile again.
MADE_OF = compiled.hash_of_sources()


class BuildOrGoWithout(build_ext):
    """Leaves the modules as they are when they cannot be compiled, and writes down of which source they are.

    With gcc they are compiled twice: first so that they count what runs how often, then by the counts of a training.
    """

    def run(self) -> None:
        """Compile, or say in a line why not."""
        compiled.remove()
        if not self.extensions:
            return
        try:
            super().run()
        except Exception as exc:
            sys.stderr.write(f"The engine runs uncompiled, several times slower: {exc}\n")
            compiled.remove()
            return
        compiled.write_down(Path() if self.inplace else Path(self.build_lib), MADE_OF)

    def build_extensions(self) -> None:
        """Compile, by the counts of a training where there can be one: not with clang, nor where pip builds alone."""
        # Whether a module has to be compiled again is told by its age, but it is compiled with other options.
        self.force = True
        if _is_gcc(self.compiler):
            try:
                self._train()
                # What the training did not come to is compiled as ever, and not for small size.
                self._compile(["-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile"])
            except (CompileError, LinkError, subprocess.CalledProcessError) as exc:
                sys.stderr.write(f"The engine is compiled without training, a tenth slower: {exc}\n")
            else:
                return
        self._compile([])

    def _train(self) -> None:
        for counts in Path(self.build_temp).rglob("*.gcda"):
            counts.unlink()
        self._compile(["-fprofile-generate"])
        self.copy_extensions_to_source()
        try:
            subprocess.run([sys.executable, "-m", "benchmarks.training"], cwd=ROOT, check=True)
        finally:
            compiled.remove()

    def _compile(self, options: list[str]) -> None:
        given = [(extension.extra_compile_args, extension.extra_link_args) for extension in self.extensions]
        for extension, (compiling, linking) in zip(self.extensions, given, strict=True):
            extension.extra_compile_args, extension.extra_link_args = compiling + options, linking + options
        try:
            super().build_extensions()
        finally:
            for extension, (compiling, linking) in zip(self.extensions, given, strict=True):
                extension.extra_compile_args, extension.extra_link_args = compiling, linking


def _is_gcc(compiler: Any) -> bool:
    if os.name != "posix":
        return False
    version = subprocess.run([compiler.compiler_so[0], "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in version.stdout


def extensions() -> list[object]:
    """The modules to compile."""
    if os.environ.get("FORKAST_COMPILE") == "0":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    os.chdir(ROOT)
    sources = [str(path.relative_to(ROOT)) for path in compiled.sources()]
    try:
        made = mypycify(["--config-file", "pyproject.toml", *sources], opt_level="3", group_name=LIBRARY)
    except SystemExit as exc:
        sys.stderr.write(f"The engine runs uncompiled, several times slower: mypyc refused it ({exc}).\n")
        return []
    if os.name == "posix":
        # Functions that nothing outside can see, or put others in the place of, may be made part of their callers.
        for extension in made:
            extension.extra_compile_args = [*extension.extra_compile_args, "-fvisibility=hidden"]
    return made


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrGoWithout})
