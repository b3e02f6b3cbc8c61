"""`python -m backstop.crdgen [--check]`: writes `crds/`, the chart's copy and `docs/reference/`, or says which is out of date."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from .kinds import KINDS, definition
from .reference import reference
from .schema import SchemaError

# Relative to the root of a checkout. The chart has its own copy, since a chart cannot reach outside of its folder.
DEFINITIONS: Final = (Path("crds"), Path("charts/backstop/files/crds"))
REFERENCE: Final = Path("docs/reference")
HEADER: Final = "# Generated from the models in operator/backstop/api by `python -m backstop.crdgen`.\n"
# Client-side apply keeps the whole object in an annotation, of which an object may hold 256 KiB in all.
MOST_BYTES: Final = 200 * 1024


def files() -> Mapping[Path, str]:
    """Path → content. Raises SchemaError."""
    rendered: dict[Path, str] = {}
    for kind in KINDS:
        body = definition(kind)
        size = len(json.dumps(body).encode())
        if size > MOST_BYTES:
            raise SchemaError(f"{kind.kind}: {size} bytes are too many for client-side apply (at most {MOST_BYTES})")
        content = HEADER + yaml.safe_dump(body, sort_keys=False, width=140, allow_unicode=True)
        rendered |= {folder / f"{kind.object_name}.yaml": content for folder in DEFINITIONS}
        rendered[REFERENCE / f"{kind.kind.lower()}.md"] = reference(kind)
    return rendered


def differences(root: Path, *, wanted: Mapping[Path, str]) -> list[Path]:
    """Files, relative to `root`, that are missing, not as `wanted`, or not wanted at all in a folder of ours."""
    there = {path.relative_to(root) for folder in (*DEFINITIONS, REFERENCE) for path in (root / folder).glob("*.*")}
    stale = [path for path, content in wanted.items() if path not in there or (root / path).read_text(encoding="utf-8") != content]
    return sorted([*stale, *(there - wanted.keys())])


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m backstop.crdgen", description="CustomResourceDefinitions and their reference from the API's models."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not what the models say")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the checkout (default: here)")
    options = parser.parse_args()
    try:
        wanted = files()
    except SchemaError as error:
        print(f"crdgen: {error}", file=sys.stderr)
        return 1
    stale = differences(options.root, wanted=wanted)
    if options.check:
        for path in stale:
            print(f"{path} is not what the models say; run `python -m backstop.crdgen`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        target = options.root / path
        if path not in wanted:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(wanted[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
