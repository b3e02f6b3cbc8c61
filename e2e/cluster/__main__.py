"""The command line of the clusters; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from e2e import images
from e2e.cluster import build
from e2e.cluster.cluster import Cluster
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.provider import Provider, find, start, take_down


def parsed(argv: list[str]) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="backstop", help="which cluster (default: %(default)s)")
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="Real Kubernetes clusters for tests and the demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[common], help="start a cluster and print the path of its kubeconfig")
    up.add_argument("--provider", type=Provider, default=Provider.AUTO, metavar="|".join(p.value for p in Provider))
    up.add_argument("--for-pid", type=int, metavar="PID", help="end it when this process ends")
    commands.add_parser("down", parents=[common], help="take a cluster away, or what a killed one left")
    commands.add_parser("kubeconfig", parents=[common], help="print the path of its kubeconfig")
    load = commands.add_parser("load-image", parents=[common], help="put images on the node")
    load.add_argument("archives", nargs="*", type=Path, metavar="FILE", help="docker or OCI archive")
    for ours in images.Image:
        load.add_argument(f"--{ours.value}", dest="ours", action="append_const", const=ours, help=f"build and load {ours.reference}")
    execute = commands.add_parser("exec", parents=[common], help="run a command inside the node")
    execute.add_argument("--net", action="store_true", help="only in its network, with this machine's files and processes")
    execute.add_argument("argv", nargs="+", metavar="-- COMMAND")
    builds = commands.add_parser("build", help="build programs into the cache")
    builds.add_argument("modules", nargs="*", choices=[[], *(module.name for module in build.PROGRAMS)], metavar="MODULE")
    return parser.parse_args(argv)


def running(name: str) -> Cluster:
    cluster = find(name)
    if cluster is None:
        raise ClusterProblem(f"Cluster `{name}` is not up: start it with `python -m e2e.cluster up --name {name}`.")
    return cluster


def main() -> None:
    arguments = parsed(sys.argv[1:])
    match arguments.command:
        case "up":
            print(start(arguments.name, provider=arguments.provider, for_pid=arguments.for_pid, detached=True).kubeconfig)
        case "down":
            print(f"cluster {arguments.name} {'is down' if take_down(arguments.name) else 'was not up'}", file=sys.stderr)
        case "kubeconfig":
            print(running(arguments.name).kubeconfig)
        case "load-image":
            cluster = running(arguments.name)
            for archive in [*arguments.archives, *(images.archive_of(ours) for ours in arguments.ours or ())]:
                cluster.load_image(archive)
        case "exec":
            cluster = running(arguments.name)
            command = cluster.enter_argv(arguments.argv, net_only=arguments.net)
            os.execvpe(command[0], command, cluster.environment())
        case "build":
            build.build_all(tuple(arguments.modules))


if __name__ == "__main__":
    try:
        main()
    except ClusterProblem as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
