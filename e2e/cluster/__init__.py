"""Real Kubernetes clusters for tests and the demo.

Command line, each with `--name NAME` (default `backstop`) and `--provider auto|kind|native`:

    python -m e2e.cluster up [--for-pid PID]     start; prints the path of its kubeconfig. Without --for-pid it stays until `down`
    python -m e2e.cluster down                   take it away, or what a killed one left; no error when there is none
    python -m e2e.cluster kubeconfig             the path of its kubeconfig
    python -m e2e.cluster load-image FILE…       docker or OCI archives; `--backstop`, `--e2e`, `--prometheus` build and load ours
    python -m e2e.cluster exec [--net] -- CMD…   run inside the node; with --net only its network, with this machine's files
    python -m e2e.cluster build [MODULE…]        build into the cache (kube etcd coredns pause helm prometheus; all by default)

Python:

    from e2e.cluster import start
    with start("mytest") as cluster:             # ends with the block, and with this process even under SIGKILL
        cluster.kubeconfig                       # Path; holds on this machine and, native, inside the node too
        cluster.kubectl("apply", "-f", "-", input=manifest)
        cluster.run(["ctr", "version"])          # inside the node; popen(...) likewise
        cluster.load_image(archive)              # e2e.images.archive_of(Image.BACKSTOP) builds ours
        cluster.service_ip("monitoring", "prometheus")
        cluster.enter_argv(argv, net_only=True)  # a command line that reaches ClusterIPs and pods (native only)
        cluster.api.get("/api/v1/nodes")         # a few plain requests

    cluster = start("demo", detached=True)       # stays after this process; find("demo") gets it again, cluster.down() ends it

    from e2e.cluster.apiserver import ApiServer  # etcd + kube-apiserver alone: no root, no namespaces, 3 s
    with ApiServer() as server: server.kubeconfig, server.url, server.token, server.certificate_authority

    from e2e.cluster.build import program        # program("helm"), program("promtool"), program("kube"): paths, built when needed

Reaching Services from a test: either run the test process itself in the node's network, `python -m e2e.cluster exec --net -- pytest …`
or `enter_argv(..., net_only=True)` (native only; it uses ClusterIPs, as this machine's resolver does not know cluster names), or run the
client in a pod (any provider). A full `exec` (without --net) also sees cluster names. `native` needs root on Linux and leaves the machine
with two empty folders (/var/lib/kubelet, /var/lib/cni), the Debian packages it needed and a raised fs.inotify.max_user_instances.
"""

from __future__ import annotations

from e2e.cluster.cluster import Cluster
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.provider import Provider, find, start

__all__ = ["Cluster", "ClusterProblem", "Provider", "find", "start"]
