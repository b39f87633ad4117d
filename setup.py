"""Compiles the modules of the hot path with mypyc, where there is a C compiler; without one they run as they are.

Everything else about the package is in pyproject.toml. ``FORKAST_COMPILE=0`` leaves the compiling out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
LIBRARY = "forkast_streams.compiled_engine"
sys.path.insert(0, str(ROOT))

from forkast_streams import compiled  # noqa: E402 - the folder must be found first


class BuildOrGoWithout(build_ext):
    """Leaves the modules as they are when they cannot be compiled, and writes down of which source they are."""

    def run(self) -> None:
        """Compile, or say in a line why not."""
        compiled.remove()
        try:
            super().run()
        except Exception as exc:
            sys.stderr.write(f"The engine runs uncompiled, a third slower: {exc}\n")
            compiled.remove()
            return
        compiled.write_down(Path() if self.inplace else Path(self.build_lib))


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
        sys.stderr.write(f"The engine runs uncompiled, a third slower: mypyc refused it ({exc}).\n")
        return []
    if os.name == "posix":
        # Functions that nothing outside can see, or put others in the place of, may be made part of their callers.
        for extension in made:
            extension.extra_compile_args.append("-fvisibility=hidden")
    return made


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrGoWithout})
