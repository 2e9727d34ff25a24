"""Modules of a user's own, which register networks and algorithms."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from gkt_core.errors import ConfigError


def load_user_module(source: str, what: str) -> ModuleType:
    """Import a user's ``path/to/module.py`` or importable module, once in a process.

    Args:
        source: The file, or the module's name.
        what: What is looked for in it, for messages.

    Raises:
        ConfigError: It cannot be imported.
    """
    path = Path(source)
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        # Two files of one name are two modules; one that is named twice registers nothing twice.
        name = path.stem
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
            return known
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, module)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            if sys.modules.get(name) is module:
                del sys.modules[name]
            raise
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        hint = f": is it a file? then give {source}.py" if error.name == source else ""
        raise ConfigError(
            f"cannot load {what} from {source}: {type(error).__name__}: {error}{hint}"
        ) from error
    except Exception as error:
        # A user's module may fail with anything.
        raise ConfigError(f"cannot load {what} from {source}: {type(error).__name__}: {error}") from error
    return module
