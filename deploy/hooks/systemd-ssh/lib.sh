# What the three hooks share; read by them, not run. shellcheck shell=sh
. "${0%/*}/../common.sh"

hosts=${HOSTS:-/etc/vecscale/hosts}
unit=vectordb@$node.service

# No terminal, no password, no waiting for a dead host; what follows the host is one command line of plain words.
on() { ssh -n -o BatchMode=yes -o ConnectTimeout=5 -- "$@"; }

# The lines of the hosts file that are hosts: a name, and a zone if it has one.
hosts() { grep -E '^[A-Za-z0-9][A-Za-z0-9._-]*([ 	]+[A-Za-z0-9._-]+)?[ 	]*$' "$hosts"; }

# Which host a node was given, if any: a file named like the node, with the host in it. It is written down before the
# host hears of it.
host_of() { cat "$state/nodes/$1" 2>/dev/null; }

zone_of() { hosts | awk -v host="$1" '$1 == host && $2 != "" { print $2; exit }'; }

[ -d "$state/nodes" ] || lost "$state/nodes is not there: make it once, with a file for each node that runs already"

address() { printf 'http://%s:%s' "$1" "${PORT:-6333}"; }
