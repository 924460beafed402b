"""Generates the chart's README.md from values.yaml: a line for each value with a comment that begins with `--`."""

import json
import pathlib
import re

import yaml

CHART = pathlib.Path(__file__).parents[1] / "helm" / "usage-analytics"
HEAD = """# usage-analytics

The chart of both services. How to install, size, scale, upgrade and roll back: `docs/operations.md`. Value sets to begin
with are in `ci/`. A value that is misspelt, out of range or contradicts another one is refused when it is rendered.

This page is generated from `values.yaml` by `make chart-readme`.

| value | default | |
|---|---|---|
"""
LINE = re.compile(r"^( *)([A-Za-z_]+):")


def rows(text: str):
    """The path, the default and the comment of each value."""
    path, comment = [], None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = stripped.removeprefix("# -- ")
        elif stripped.startswith("#") and comment is not None:
            comment += " " + stripped.removeprefix("#").strip()
        elif found := LINE.match(line):
            depth = len(found[1]) // 2
            path = path[:depth] + [found[2]]
            if comment is not None:
                yield list(path), comment
                comment = None


def default(values: dict, path: list[str]):
    for name in path:
        values = values[name]
    return values


def generated() -> str:
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    lines = [f"| `{'.'.join(path)}` | `{json.dumps(default(values, path))}` | {comment} |" for path, comment in rows(text)]
    return HEAD + "\n".join(lines) + "\n"


def undocumented() -> list[str]:
    """Values that have no comment of their own, nor one of a value that they are inside of."""
    text = (CHART / "values.yaml").read_text()
    known = {tuple(path) for path, _ in rows(text)}

    def leaves(value, path):
        if path in known:
            return
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from leaves(inner, (*path, name))
        else:
            yield ".".join(path)

    return list(leaves(yaml.safe_load(text), ()))


if __name__ == "__main__":
    (CHART / "README.md").write_text(generated())
