#!/usr/bin/env bash
# Kills `devcluster up` with SIGKILL at several moments, takes the cluster down,
# and compares the machine with what it was before. Also once after a whole
# `up` with pods and a daemon left running. Needs root; run it on a quiet machine.
#
#   test/leftovers.sh [DIR]        DIR keeps the built programs (default /tmp/devcluster-leftovers)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-/tmp/devcluster-leftovers}
work=$(mktemp -d)
trap 'dc down >/dev/null 2>&1; rm -rf "$work"' EXIT
go build -o "$work/devcluster" .
export DEVCLUSTER_DIR=$dir
dc() { "$work/devcluster" "$@"; }

# Everything on the host is named after the first eight digits of this hash, so
# other clusters on this machine do not disturb the comparison.
id=$(printf %s "$(realpath -m "$dir")" | sha256sum | cut -c1-8)
mine() { grep -F -e "$dir" -e "$id" || true; }

snapshot() { # everything a cluster could leave, one file each
	mkdir -p "$work/$1"
	ps -eo pid,args --no-headers | mine | grep -v -e grep -e leftovers.sh >"$work/$1/processes" || true
	mine </proc/self/mounts >"$work/$1/mounts"
	ls /sys/class/net | mine >"$work/$1/links"
	ip route | mine >"$work/$1/routes"
	{ ls /run/netns /etc/netns 2>/dev/null || true; } | mine >"$work/$1/netns"
	find /sys/fs/cgroup -type d | mine >"$work/$1/cgroups"
	ls -A /run /tmp | mine >"$work/$1/temporary"
	{ iptables-save | grep -v '^#' || true; } >"$work/$1/iptables" 2>/dev/null
	grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic{,_on_oops} >"$work/$1/kernel-settings"
	ls -A /var/lib /var/log /etc /opt /usr/libexec >"$work/$1/folders"
	{ ls -A "$dir" 2>/dev/null | grep -v -e '^bin$' -e '^lock$' -e '^.devcluster$' || true; } >"$work/$1/files"
}

failed=0
compare() {
	snapshot after
	if diff -r "$work/before" "$work/after" >"$work/diff"; then
		echo "ok    $1: nothing left"
	else
		echo "FAIL  $1:"
		sed 's/^/      /' "$work/diff"
		failed=$((failed + 1))
	fi
}

dc down >/dev/null 2>&1 || true
dc build
snapshot before

for delay in 0.05 0.1 0.15 0.2 0.3 0.5 1 2 3; do
	dc up >"$work/up.log" 2>&1 &
	victim=$!
	sleep "$delay"
	kill -9 "$victim" 2>/dev/null || true
	wait "$victim" 2>/dev/null || true
	dc down >/dev/null 2>&1
	compare "killed after ${delay}s"
done

# While it builds: take one program away, so that there is something to build.
rm -f "$dir/bin/kube"
dc up >"$work/up.log" 2>&1 &
victim=$!
sleep 1.5
kill -9 "$victim"
wait "$victim" 2>/dev/null || true
dc down >/dev/null 2>&1
compare "killed while building"
dc build

# A whole cluster with containers and daemons, one of them not started by us.
dc up --machines 2
dc load-image localhost/demo:1 --demo >/dev/null
"$dir/bin/kubectl" --kubeconfig "$dir/kubeconfig" run left --image=localhost/demo:1 --image-pull-policy=IfNotPresent -- sleep 1000
"$dir/bin/kubectl" --kubeconfig "$dir/kubeconfig" wait --for=condition=Ready pod/left --timeout=60s
dc start --name sleeper machine-2 -- sleep 1000 >/dev/null
netns=$(dc status -o json | sed -n 's/.*"netns": "\(.*-machine-1\)".*/\1/p')
ip netns exec "$netns" sleep 1000 >/dev/null 2>&1 &
disown
# The runtime dies first: its container must go all the same.
kill -9 "$(cat "$dir/run/containerd-node-1.pid")"
dc down
compare "whole cluster with a dead runtime"

# Down while up is at work.
dc up >"$work/up.log" 2>&1 &
victim=$!
sleep 1
dc down >/dev/null 2>&1
wait "$victim" 2>/dev/null || true
compare "down during up"

if ((failed)); then
	echo "$failed failed"
	exit 1
fi
echo "all ok"
