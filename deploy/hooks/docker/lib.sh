# What the three hooks share; read by them, not run. shellcheck shell=sh
. "${0%/*}/../common.sh"

image=${IMAGE:?such as qdrant/qdrant:v1.15.0}
network=${NETWORK:-bridge}
port=${PORT:-6333}
for word in "$image" "$network" "$port"; do
  case "$word" in *[!A-Za-z0-9._/:@-]*) refuse "IMAGE, NETWORK or PORT is not plain" ;; esac
done

# One request to the engine: the body of the answer in $body, its status in $status; 000 when there was no answer.
# The input is closed: it is vecscale's lock, not the request.
engine() {
  method=$1 path=$2
  shift 2
  answer=$(curl -sS --max-time 60 --unix-socket "${SOCKET:-/var/run/docker.sock}" -X "$method" -w '\n%{http_code}' \
    "$@" "http://docker/v1.41$path" < /dev/null) || answer="$answer
000"
  status=${answer##*
}
  body=${answer%
*}
}

# The container of the node, in $body. Another pool's is nobody's to touch.
look() {
  engine GET "/containers/$node/json"
  [ "$status" = 200 ] || return 1
  owner=$(printf '%s' "$body" | jq -r '.Config.Labels["vecscale.pool"] // ""')
  [ "$owner" = "$VECSCALE_POOL" ] || refuse "a container $node is there already and is not of pool $VECSCALE_POOL"
}

# The address of the container in $body: by its IP, or by its name while it has none.
address() {
  ip=$(printf '%s' "$body" | jq -r --arg n "$network" '.NetworkSettings.Networks[$n].IPAddress // ""')
  printf 'http://%s:%s' "${ip:-$node}" "$port"
}
