"""A TOML file → its tables, with every error that pydantic finds put into our words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.config.files import File
from agent.config.problem import Location, Problem
from agent.config.tables import (
    AgentTable,
    IncludedFile,
    MainFile,
    OrgTable,
    PolicyTable,
    Table,
    WebTable,
    tables_in,
)

# Every type of error that the tables above can produce. `ctx` gives what stands in braces.
_SENTENCES: Final[Mapping[str, str]] = {
    "value_error": "{error}",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "list_type": "must be a list in brackets",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "enum": "must be one of {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


# The same key has another home: say which.
_HOMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(PolicyTable.model_fields, "[orgs.NAME.policy] or [defaults.policy]"),
    **dict.fromkeys(OrgTable.model_fields, "[orgs.NAME] or [defaults]"),
    **dict.fromkeys(WebTable.model_fields, "[web]"),
    **dict.fromkeys(AgentTable.model_fields, "[agent]"),
    **dict.fromkeys(MainFile.model_fields, "the top of the main file"),
}


_FEW: Final = 4


def _sentence(error: ErrorDetails, model: type[Table]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(error["loc"], model)
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        return "is not accepted here"
    return sentence.format_map(error.get("ctx", {}))


def _unknown(location: Location, model: type[Table]) -> str:
    table, key = _table_at(location[:-1], model), str(location[-1])
    if model is IncludedFile and len(location) == 1:
        return "only [orgs.NAME] may stand in an included file"
    known = [info.alias or name for name, info in table.model_fields.items()]
    near = difflib.get_close_matches(key, known, n=1)
    if key in _HOMES:
        return f"no such key here (it belongs in {_HOMES[key]})"
    if near:
        return f"no such key (did you mean {near[0]}?)"
    if len(known) <= _FEW:
        return f"no such key (there are {', '.join(known[:-1])} and {known[-1]})"
    return "no such key"


def _table_at(location: Location, model: type[Table]) -> type[Table]:
    """Return the model of the table at a location; names of orgs and places are passed over."""
    for part in location:
        info = model.model_fields.get(str(part))
        if info is not None:
            model = next(tables_in(info.annotation), model)
    return model


_Model = TypeVar("_Model", MainFile, IncludedFile)


def parse(
    file: File, model: type[_Model], problems: list[Problem]
) -> tuple[_Model, frozenset[Location]]:
    """Return what of the file is valid, and the locations of what is not.

    What is wrong is taken out and the rest validated again, so that the checks across keys still
    find their problems in the same run.
    """
    content = file.content
    bad: set[Location] = set()
    base = str(file.path.parent.absolute())
    while True:
        try:
            return model.model_validate(content, context=base), frozenset(bad)
        except ValidationError as error:
            fresh: set[Location] = set()
            for detail in error.errors(include_url=False, include_input=False):
                location = detail["loc"]
                # A table that lacks something after its wrong part was taken out is no news.
                if not any(place[: len(location)] == location for place in bad):
                    problems.append(file.problem(location, _sentence(detail, model)))
                removed = _innermost(content, location)
                content = _without(content, removed)
                fresh.add(removed)
            bad |= fresh


def _innermost(content: Mapping[str, Any], location: Location) -> Location:
    """Return the location, or the innermost key around it that exists.

    What is no table in a list is taken for its list, so that the others keep their places.
    """
    found: Any = content
    innermost = location[:1]
    for depth, part in enumerate(location, start=1):
        if isinstance(found, dict):
            innermost = location[:depth]
            found = found.get(part)
        elif isinstance(found, list) and isinstance(part, int):
            found = found[part]
        else:
            break
    return innermost


def _without(content: Any, location: Location) -> Any:  # noqa: ANN401 - as TOML has it
    """Return a table or list without the key at the location."""
    part, rest = location[0], location[1:]
    if isinstance(content, list):
        return [_without(c, rest) if place == part else c for place, c in enumerate(content)]
    if rest:
        return {**content, part: _without(content[part], rest)}
    return {key: value for key, value in content.items() if key != part}
