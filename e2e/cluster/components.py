"""Command lines and configuration of the native node's components.

Pure text: knows every flag, starts nothing. Addresses are the same in each
cluster, as each has a network namespace of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import cgroups
from e2e.cluster.api import write_kubeconfig
from e2e.cluster.pki import Authority, Identity

NODE = "node"
NODE_IP = "10.200.0.2"
SERVICES = "10.96.0.0/16"
API_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
PODS = "10.244.0.0/24"
CLUSTER_PODS = "10.244.0.0/16"
PAUSE_IMAGE = "localhost/pause:1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
CNI_PROGRAMS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class NodeFiles:
    """Where one native cluster keeps its files; everything lies under `state`."""

    state: Path
    name: str

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def data(self) -> Path:
        return self.state / "data"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def node_pid(self) -> Path:
        return self.state / "node.pid"

    @property
    def keeper_pid(self) -> Path:
        return self.state / "keeper.pid"


def etcd(program: Path, *, data: Path, client_port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        str(program),
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(kube: Path, *, authority: Authority, serving: Identity, etcd_port: int, port: int) -> list[str]:
    return [
        str(kube),
        "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--secure-port={port}",
        f"--client-ca-file={authority.bundle}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={serving.certificate}",
        f"--service-account-signing-key-file={serving.key}",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
    ]


def serving_identity(authority: Authority, *addresses: str) -> Identity:
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost")
    return authority.issue("apiserver", user="kube-apiserver", hosts=(*names, API_IP, "127.0.0.1", *addresses))


def write_configuration(files: NodeFiles, *, port: int) -> dict[str, list[str]]:
    """Writes certificates, kubeconfigs and configuration files; returns the arguments after the program of each component by its name."""
    authority = Authority.create(files.pki)
    files.config.mkdir()
    (files.config / "cni").mkdir()

    def kubeconfig(file: str, *, user: str, group: str = "", hosts: tuple[str, ...] = ()) -> tuple[Path, Identity]:
        identity = authority.issue(file, user=user, group=group, hosts=hosts)
        path = files.kubeconfig if file == "admin" else files.config / f"{file}.kubeconfig"
        return write_kubeconfig(path, server=f"https://127.0.0.1:{port}", authority=authority.bundle, identity=identity), identity

    serving = serving_identity(authority, NODE_IP)
    admin, admin_identity = kubeconfig("admin", user="admin", group="system:masters")
    controllers, _ = kubeconfig("kube-controller-manager", user="system:kube-controller-manager")
    scheduler, _ = kubeconfig("kube-scheduler", user="system:kube-scheduler")
    proxy, _ = kubeconfig("kube-proxy", user="system:kube-proxy")
    kubelet, kubelet_identity = kubeconfig("kubelet", user=f"system:node:{NODE}", group="system:nodes", hosts=(NODE, NODE_IP))
    written = {
        "containerd.toml": _containerd(files),
        "cni/10-bridge.conflist": json.dumps(_cni(files)),
        "kubelet.json": json.dumps(_kubelet(files, authority=authority, identity=kubelet_identity)),
        "kube-proxy.json": json.dumps(_kube_proxy(proxy)),
        "Corefile": _corefile(admin),
        "resolv.conf": f"nameserver {DNS_IP}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
    }
    for name, text in written.items():
        (files.config / name).write_text(text)
    api = api_server(Path("kube"), authority=authority, serving=serving, etcd_port=2379, port=port)[2:]
    return {
        "etcd": etcd(Path("etcd"), data=files.data / "etcd", client_port=2379, peer_port=2380)[1:],
        "containerd": [f"--config={files.config / 'containerd.toml'}"],
        "kube-apiserver": [
            *api,
            f"--advertise-address={NODE_IP}",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={authority.bundle}",
            f"--kubelet-client-certificate={admin_identity.certificate}",
            f"--kubelet-client-key={admin_identity.key}",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={controllers}",
            f"--root-ca-file={authority.bundle}",
            f"--service-account-private-key-file={serving.key}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--cluster-cidr={CLUSTER_PODS}",
            "--allocate-node-cidrs",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
        ],
        "kube-scheduler": [f"--kubeconfig={scheduler}", "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=1000"],
        "kubelet": [
            f"--kubeconfig={kubelet}",
            f"--config={files.config / 'kubelet.json'}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
        ],
        "kube-proxy": [f"--config={files.config / 'kube-proxy.json'}", f"--hostname-override={NODE}"],
        "coredns": [f"-conf={files.config / 'Corefile'}"],
    }


def _containerd(files: NodeFiles) -> str:
    # Without restrict_oom_score_adj no sandbox starts where CAP_SYS_RESOURCE is missing; the `opt` plugin would make /opt/containerd.
    return f"""\
version = 2
root = "{files.data / "containerd"}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PROGRAMS}"
conf_dir = "{files.config / "cni"}"
"""


def _cni(files: NodeFiles) -> dict[str, Any]:
    ranges = {"type": "host-local", "dataDir": str(files.data / "cni-addresses"), "ranges": [[{"subnet": PODS}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ipam = {"ipam": ranges | {"routes": [{"dst": "0.0.0.0/0"}]}}
    plugins = [bridge | ipam, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "backstop", "plugins": plugins}


def _kubelet(files: NodeFiles, *, authority: Authority, identity: Identity) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority.bundle)}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(identity.certificate),
        "tlsPrivateKeyFile": str(identity.key),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.folder(files.name)}",
        "failSwapOn": False,
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_IP],
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"},
        "maxPods": 250,
        "podCIDR": PODS,
        "volumePluginDir": str(files.data / "volume-plugins"),
        "kubeAPIQPS": 1000,
        "kubeAPIBurst": 1000,
        "serializeImagePulls": False,
    }


def _kube_proxy(kubeconfig: Path) -> dict[str, Any]:
    # The connection-tracking limits are machine-wide: zero leaves them alone.
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": CLUSTER_PODS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "0s"},
        "oomScoreAdj": 0,
        "nodePortAddresses": ["primary"],
    }


def _corefile(kubeconfig: Path) -> str:
    return f"""\
.:53 {{
  bind {NODE_IP}
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {kubeconfig}
    ttl 5
  }}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""
