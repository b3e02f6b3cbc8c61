"""`python -m e2e.fakemodel [--host ADDRESS] [--port 8000] [--script FILE]`: the fake model as a process."""

import argparse
from pathlib import Path
from random import Random

import uvloop
from aiohttp import web

from .app import FakeModel
from .script import parse_rules


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m e2e.fakemodel", description="An OpenAI-compatible model whose behaviour is scripted.")
    parser.add_argument("--host", help="where to listen (default: every address)")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--script", type=Path, metavar="FILE", help="rules to begin with, as `POST /-/script` takes them")
    options = parser.parse_args()
    model = FakeModel(random=Random())
    if options.script is not None:
        model.rules = parse_rules(options.script.read_bytes())
    web.run_app(
        model.application(), host=options.host, port=options.port, loop=uvloop.new_event_loop(), access_log=None, handler_cancellation=True
    )


main()
