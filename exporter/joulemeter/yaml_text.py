"""YAML as configuration files use it: a safe subset, and errors that name the line. Reads no files."""

from collections.abc import Hashable
from typing import Any

import yaml

from joulemeter.errors import ConfigError


def read_yaml(text: str, *, source: str) -> Any:
    """Return what a YAML text holds, None if it is empty; `source` names it in errors.

    Raises:
        ConfigError: the text is not YAML, with its line.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - StrictLoader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError([f"{line}: {error.problem or error.context}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{source}: not YAML text: {error}"]) from error
    except ValueError as error:  # a date with a 13th month, an integer of 5,000 digits
        raise ConfigError([f"{source}: {error}; put text that looks like a date in quotes"]) from error


class StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, refusing a key given twice: the first value would silently be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are all different."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"key {key.value!r} is given twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
