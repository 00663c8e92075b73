# What the three hooks share; read by them, not run. shellcheck shell=sh
. "${0%/*}/../common.sh"

sts=${STATEFULSET:?the name of the StatefulSet}
ns=${NAMESPACE:-default}
is_plain "$sts" && is_plain "$ns" || refuse "STATEFULSET or NAMESPACE is not plain"

k() { kubectl --namespace "$ns" --request-timeout=20s "$@" < /dev/null; }

# The version and the replicas of the StatefulSet, in $version and $replicas; its annotations, one a line, in $notes.
# A StatefulSet counts its pods; vecscale never gives a name twice. `vecscale.node/3: default-7` says that the node
# default-7 is the pod with ordinal 3; a pod without a note goes by its own name.
read_sts() {
  told=$(k get statefulset "$sts" -o go-template='{{.metadata.resourceVersion}} {{.spec.replicas}}{{"\n"}}{{range $k, $v := .metadata.annotations}}{{$k}} {{$v}}{{"\n"}}{{end}}') || return 1
  version=${told%% *}
  replicas=$(printf '%s\n' "$told" | sed -n '1s/.* //p')
  notes=$(printf '%s\n' "$told" | sed 1d)
  is_number "$replicas"
}

note() { printf '%s\n' "$notes" | sed -n "s|^vecscale\.$1 ||p"; }

# The ordinal of $node; fails when it has none.
ordinal_of_node() {
  noted=$(printf '%s\n' "$notes" | sed -n "s|^vecscale\.node/\([0-9]*\) $(printf '%s' "$node" | sed 's/\./\\./g')\$|\1|p")
  if [ -n "$noted" ]; then
    echo "$noted"
    return
  fi
  last=${node##*-}
  [ "$node" = "$sts-$last" ] && is_number "$last" && [ -z "$(note "node/$last")" ] && echo "$last"
}

id_of() { its=$(note "node/$1"); echo "${its:-$sts-$1}"; }

address() { printf 'http://%s-%s.%s.%s.svc:%s' "$sts" "$1" "${SERVICE:-$sts}" "$ns" "${PORT:-6333}"; }

# Refuses an older controller than the newest that the StatefulSet has seen, and keeps ours with what else is noted. Not
# written if the StatefulSet has changed since it was read.
fenced_note() {
  is_number "${VECSCALE_FENCE-}" || refuse "VECSCALE_FENCE is not a number"
  [ -n "${VECSCALE_KEY-}" ] || refuse "VECSCALE_KEY is missing"
  seen=$(note fence)
  [ "$VECSCALE_FENCE" -ge "${seen:-0}" ] || refuse "fence $VECSCALE_FENCE is behind $seen: another controller has taken over"
  k annotate statefulset "$sts" --overwrite --resource-version="$version" "vecscale.fence=$VECSCALE_FENCE" "$@" >&2
}
