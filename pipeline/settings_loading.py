"""Reads settings: one YAML file is one reproducible run, validated whole before any data is read.

Precedence, low to high: defaults, the YAML file, environment variables ``SCANLOOM_A__B``, ``--set a.b=c``. Sections are
merged key by key; a setting whose value is itself a mapping is replaced whole, unless an override names one of its
entries (``--set generate.lesions.per_class.cyst=4``). Unknown keys are refused with the nearest known name. Of the
two ways to write a recipe, ``per_class`` and ``lines``, the one of the higher precedence drives out the other.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from pipeline.errors import SettingsError
from pipeline.settings import RunSettings

ENVIRONMENT_PREFIX = "SCANLOOM_"
_RECIPE = ("generate", "lesions")


class _Environment(BaseSettings):
    """Reads ``SCANLOOM_SECTION__KEY`` variables with pydantic-settings; only names of `RunSettings` are looked at."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="ignore")
    name: str | None = None
    seed: int | None = None
    device: str | None = None
    device_turns: str | None = None
    promotion: str | None = None
    tracks: list[str] | None = None
    ingest: dict[str, Any] | None = None
    prepare: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    generate: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None
    export: dict[str, Any] | None = None
    share: dict[str, Any] | None = None
    report: dict[str, Any] | None = None


def load(path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> RunSettings:
    """Read and validate a run's settings.

    Args:
        path: YAML file; None takes every default.
        overrides: ``a.b=c`` strings, the value parsed as YAML.
        environment: variables to use instead of the process environment.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, a value is not allowed.
    """
    values = {} if path is None else _read_yaml(path)
    variables = _from_environment(os.environ if environment is None else environment)
    values = _one_recipe(_merge(values, variables, RunSettings), variables)
    said: dict[str, Any] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        values, said = _put(values, keys, value, RunSettings), _put(said, keys, value, RunSettings)
    values = _one_recipe(values, said)
    source = path.name if path else "the defaults"
    return validate(values, source=f"{source} with overrides" if variables or overrides else source)


def validate(values: Mapping[str, Any], source: str) -> RunSettings:
    """Validate a mapping into `RunSettings`; ``source`` names where it came from in errors."""
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from None


def json_schema() -> dict[str, Any]:
    """JSON schema of a run's settings, for editors."""
    return RunSettings.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def to_yaml(settings: RunSettings) -> str:
    """The resolved settings as YAML, every default written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """Names of the presets that ship with scanloom."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def find_preset(name_or_path: str) -> Path:
    """A settings file by path, or a shipped preset by name.

    Raises:
        SettingsError: neither exists.
    """
    path = Path(name_or_path)
    preset = _preset_folder() / f"{name_or_path}.yaml"
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    if path.name == name_or_path and preset.is_file():
        return preset
    raise SettingsError(
        "The settings must be a YAML file or the name of a preset.",
        found=name_or_path,
        allowed=f"a path ending in .yaml, or one of: {', '.join(preset_names())}",
        change=_did_you_mean(name_or_path, preset_names()) or "Check the path.",
    )


def _preset_folder() -> Path:
    return Path(__file__).resolve().parent.parent / "configs"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            "The settings file must be readable YAML.",
            found=" ".join(str(error).split()),
            allowed="a UTF-8 YAML mapping",
            change=f"Correct {path}.",
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(
            "The settings file must hold a mapping.",
            found=type(values).__name__,
            allowed="keys and values",
            change=f"Correct {path}.",
        )
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(_Environment)
    source.env_vars = {key.lower(): value for key, value in environment.items()}
    found = {key: value for key, value in source().items() if value is not None}
    return {key: _parse_scalars(value) for key, value in found.items()}


def _parse_scalars(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _parse_scalars(item) for key, item in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def _parse_override(override: str) -> tuple[list[str], Any]:
    """Keys and value of ``a.b=c``."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise SettingsError(
            "An override must be written key=value.",
            found=override,
            allowed="a.b=c, e.g. train.lesions.images=20000",
            change="Put a key, an equals sign and a value after --set.",
        )
    try:
        return keys, yaml.safe_load(text)
    except yaml.YAMLError:
        return keys, text


def _merge(low: Mapping[str, Any], high: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """Values of a section with those of ``high`` put over them."""
    merged = dict(low)
    for key, value in high.items():
        merged = _put(merged, [key], value, section)
    return merged


def _put(values: Mapping[str, Any], keys: Sequence[str], value: Any, section: type[BaseModel] | None) -> dict[str, Any]:
    """Values with one of them set; where the keys lead to a section, a mapping is merged into it, else it replaces."""
    key, rest = keys[0], keys[1:]
    inner, old = _section(section, key), values.get(key)
    if rest:
        value = _put(old if isinstance(old, Mapping) else {}, rest, value, inner)
    elif inner is not None and isinstance(value, Mapping) and isinstance(old, Mapping):
        value = _merge(old, value, inner)
    return {**values, key: value}


def _one_recipe(values: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Values without the recipe that is given up by what was said last: ``per_class`` for ``lines`` or the reverse."""
    recipe: Any = said
    for key in _RECIPE:
        recipe = recipe.get(key) if isinstance(recipe, Mapping) else None
    if not isinstance(recipe, Mapping):
        return values
    for own, other, nothing in (("per_class", "lines", []), ("lines", "per_class", None)):
        if recipe.get(own) and other not in recipe:
            return _put(values, [*_RECIPE, other], nothing, RunSettings)
    return values


def _section(section: type[BaseModel] | None, key: object) -> type[BaseModel] | None:
    """The settings section that a key of a section names; None for a setting or an unknown key."""
    field = section.model_fields.get(str(key)) if section is not None else None
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _explain(error: ValidationError, source: str) -> SettingsError:
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "(top level)"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        hint = _did_you_mean(str(first["loc"][-1]), known)
        return SettingsError(
            f"Unknown setting in {source}{more}.",
            found=where,
            allowed=", ".join(known),
            change=hint or "Remove the key or correct its name.",
        )
    return SettingsError(
        f"A setting in {source} has a value that is not allowed{more}.",
        found=f"{where} = {first['input']!r}",
        allowed=first["msg"],
        change=f"Correct {where}.",
    )


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: Any = RunSettings
    for part in location:
        section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
    return list(section.model_fields)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean `{near[0]}`?" if near else ""
