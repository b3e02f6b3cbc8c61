"""Writes the golden files anew, for review: `python -m tests.rendering.golden`."""

from pathlib import Path

import yaml

from tests.rendering.scene import everything


class _Readable(yaml.SafeDumper):
    """Texts of several lines are written as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


if __name__ == "__main__":
    _Readable.add_representer(str, _text)
    for name, body in everything().items():
        text = yaml.dump(body, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=140)
        (Path(__file__).parent / "golden" / f"{name}.yaml").write_text(text, encoding="utf-8")
