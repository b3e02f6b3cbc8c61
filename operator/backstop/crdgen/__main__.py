"""`python -m backstop.crdgen [--check]`: writes `crds/` and the chart's copy, or says which file is not what the models say."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from .kinds import KINDS, definition
from .schema import SchemaError

# Relative to the root of a checkout. The chart has its own copy, since a chart cannot reach outside of its folder.
FOLDERS: Final = (Path("crds"), Path("charts/backstop/files/crds"))
HEADER: Final = "# Generated from the models in operator/backstop/api by `python -m backstop.crdgen`.\n"
# Client-side apply keeps the whole object in an annotation, of which an object may hold 256 KiB in all.
MOST_BYTES: Final = 200 * 1024


def files() -> Mapping[str, str]:
    """File name → content. Raises SchemaError."""
    rendered = {}
    for kind in KINDS:
        body = definition(kind)
        size = len(json.dumps(body).encode())
        if size > MOST_BYTES:
            raise SchemaError(f"{kind.kind}: {size} bytes are too many for client-side apply (at most {MOST_BYTES})")
        rendered[f"{kind.object_name}.yaml"] = HEADER + yaml.safe_dump(body, sort_keys=False, width=140, allow_unicode=True)
    return rendered


def differences(root: Path, *, wanted: Mapping[str, str]) -> list[Path]:
    """Files under `root` that are missing, not as `wanted`, or not wanted at all."""
    found = []
    for folder in FOLDERS:
        paths = {path.name: path for path in sorted((root / folder).glob("*.yaml"))}
        found += [path for name, path in paths.items() if name not in wanted]
        for name, content in wanted.items():
            if name not in paths or paths[name].read_text(encoding="utf-8") != content:
                found.append(root / folder / name)
    return found


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m backstop.crdgen", description="CustomResourceDefinitions from the API's models.")
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
        if path.name not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path.name], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
