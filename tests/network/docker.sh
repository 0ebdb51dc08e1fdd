#!/bin/sh
# The rules that Docker makes at its start, on a host with one container that publishes its port 80 as 8080, in the order in which it
# makes them. docker.sh IPTABLES 27|28: by that program, of that version of Docker. Run again, it does what a restart of Docker does.
set -eu
iptables=$1
version=$2
t() { "$iptables" -w 5 "$@"; }
fresh() { t -t "$1" -N "$2" 2>/dev/null || t -t "$1" -F "$2"; }
# Docker asks with -C, takes out what is there, and puts it on top.
top() { t -D FORWARD -j "$1" 2>/dev/null || true; t -I FORWARD -j "$1"; }

fresh nat DOCKER
fresh filter DOCKER
fresh filter DOCKER-ISOLATION-STAGE-1
fresh filter DOCKER-ISOLATION-STAGE-2
t -t nat -C POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE 2>/dev/null ||
    t -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
t -t nat -C PREROUTING -m addrtype --dst-type LOCAL -j DOCKER 2>/dev/null ||
    t -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
t -t nat -C OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER 2>/dev/null ||
    t -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
t -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
t -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
t -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
case $version in
27)
    t -C FORWARD -i docker0 -o docker0 -j ACCEPT 2>/dev/null || {
        t -I FORWARD -i docker0 -o docker0 -j ACCEPT
        t -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
        t -I FORWARD -o docker0 -j DOCKER
        t -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    }
    t -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    t -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    top DOCKER-ISOLATION-STAGE-1
    ;;
28)
    for chain in DOCKER-FORWARD DOCKER-CT DOCKER-BRIDGE; do fresh filter "$chain"; done
    t -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    t -A DOCKER-BRIDGE -o docker0 -j DOCKER
    t -A DOCKER-FORWARD -j DOCKER-CT
    t -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
    t -A DOCKER-FORWARD -j DOCKER-BRIDGE
    t -A DOCKER-FORWARD -i docker0 -j ACCEPT
    top DOCKER-FORWARD
    ;;
esac
t -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
t -A DOCKER ! -i docker0 -o docker0 -j DROP
# The user's own chain is kept.
t -N DOCKER-USER 2>/dev/null && t -A DOCKER-USER -j RETURN
top DOCKER-USER
t -P FORWARD DROP
