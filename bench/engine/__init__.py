"""What the operator costs and how fast it takes traffic from a bad canary, with up to ten thousand policies.

    python -m bench.engine                          all parts, an hour on two cores
    python -m bench.engine --idle 200 --live 1,100  some of them

A real etcd, kube-apiserver and Prometheus; the operator as a process of its own, with the rights that are shipped. Pods, kubelet and
gateways are played by this process: `gateways` answers for them, `kubelet` makes them.
"""
