# What the hooks share; read by them, not run. shellcheck shell=sh

# Nothing was changed.
refuse() { echo "$*" >&2; exit 20; }
# Nobody knows what was changed: vecscale looks before it asks again.
lost() { echo "$*" >&2; exit 1; }

# A name that may stand in a command, a path or an address. Letters are those of ASCII, whatever the locale.
LC_ALL=C
export LC_ALL
is_plain() {
  case "$1" in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;; esac
  [ "${#1}" -le 63 ]
}

# The node that a call is about, in $node.
node=${VECSCALE_NODE-}
need_node() { is_plain "$node" || refuse "not the name of a node"; }
is_plain "${VECSCALE_POOL-}" || refuse "VECSCALE_POOL is not a name"

# Where the hooks keep what they must remember.
state=${HOOK_STATE:-/var/lib/vecscale-hooks}/$VECSCALE_POOL

is_number() { case "$1" in '' | *[!0-9]*) return 1 ;; esac; }

# Writes a small file in one go.
keep() { { echo "$2" > "$1.new" && mv "$1.new" "$1"; } || refuse "$1 cannot be written"; }

# Refuses a call of an older controller than the newest seen.
fenced() {
  is_number "${VECSCALE_FENCE-}" || refuse "VECSCALE_FENCE is not a number"
  [ -n "${VECSCALE_KEY-}" ] || refuse "VECSCALE_KEY is missing"
  mkdir -p "$state" || refuse "no place for $state"
  seen=$(cat "$state/fence" 2>/dev/null) || seen=0
  [ "$VECSCALE_FENCE" -ge "$seen" ] || refuse "fence $VECSCALE_FENCE is behind $seen: another controller has taken over"
  keep "$state/fence" "$VECSCALE_FENCE"
}
