//! Against a double of `kubectl` that knows one StatefulSet, its pods and its claims.

use super::*;

const KUBECTL: &str = r#"#!/bin/sh
echo "$*" | tr '\n' ' ' >> "$DOUBLE/ledger"; echo >> "$DOUBLE/ledger"
K=$DOUBLE
shift 3 # --namespace … --request-timeout=…
verb=$1 kind=$2; shift 2
changed() { echo $(($(cat "$K/version") + 1)) > "$K/version"; }
without() { grep -v "^$1 " "$K/notes" > "$K/notes.new"; mv "$K/notes.new" "$K/notes"; }
case "$verb $kind" in
  'get statefulset') echo "$(cat "$K/version") $(cat "$K/replicas")"; cat "$K/notes" ;;
  'annotate statefulset')
    shift
    for word; do
      case $word in
        --overwrite) ;;
        --resource-version=*) [ "${word#*=}" = "$(cat "$K/version")" ] || { echo conflict >&2; exit 1; } ;;
        *=*) without "${word%%=*}"; echo "${word%%=*} ${word#*=}" >> "$K/notes" ;;
        *-) without "${word%-}" ;;
      esac
    done
    changed ;;
  'scale statefulset')
    [ "$2" = "--current-replicas=$(cat "$K/replicas")" ] || { echo conflict >&2; exit 1; }
    n=${3#*=}
    echo "scaled to $n" >> "$K/ledger"
    echo "$n" > "$K/replicas"
    i=0; while [ $i -lt "$n" ]; do touch "$K/pods/q-$i" "$K/claims/data-q-$i"; i=$((i + 1)); done
    [ -e "$K/slow" ] || rm -f "$K/pods/q-$n"
    changed ;;
  'get pods') for pod in "$K"/pods/*; do echo "${pod##*/} True"; done ;;
  'get pod') [ ! -e "$K/pods/$1" ] || echo "pod/$1" ;;
  'get pvc') [ ! -e "$K/claims/$1" ] || echo "persistentvolumeclaim/$1" ;;
  'delete pvc') rm -f "$K/claims/$1" ;;
  *) echo "unknown: $verb $kind" >&2; exit 1 ;;
esac
"#;

fn hooks() -> Hooks {
    let hooks = Hooks::new("kubernetes", &[("STATEFULSET", "q"), ("NAMESPACE", "db"), ("SELECTOR", "app=q")]);
    hooks.double("kubectl", KUBECTL);
    for folder in ["pods", "claims"] {
        fs::create_dir(hooks.path(folder)).expect("a folder");
        for i in 0..3 {
            let name = if folder == "pods" { format!("q-{i}") } else { format!("data-q-{i}") };
            fs::write(hooks.path(folder).join(name), b"").expect("a file");
        }
    }
    for (name, text) in [("version", "10\n"), ("replicas", "3\n"), ("notes", "kubectl.kubernetes.io/x {}\n")] {
        fs::write(hooks.path(name), text).expect("a file");
    }
    hooks
}

fn scaled(hooks: &Hooks) -> Vec<String> {
    hooks.ledger().into_iter().filter(|line| line.starts_with("scaled")).collect()
}

fn count(hooks: &Hooks, folder: &str) -> usize {
    fs::read_dir(hooks.path(folder)).expect("a folder").count()
}

#[tokio::test]
async fn the_next_ordinal_is_the_new_node_and_the_last_goes_first() {
    let hooks = hooks();
    assert_eq!(hooks.names().await, ["q-0", "q-1", "q-2"]);
    let machine = hooks.created("default-7").await;
    assert_eq!((machine.address.as_str(), machine.instance.as_deref()), ("http://q-3.q.db.svc:6333", Some("q-3")));
    assert_eq!(hooks.created("default-7").await, machine);
    assert_eq!(hooks.run("create", "default-7").code, Some(10));
    assert_eq!(scaled(&hooks), ["scaled to 4"], "asked three times, scaled once");
    assert_eq!(hooks.names().await, ["default-7", "q-0", "q-1", "q-2"]);

    refused(hooks.destroy("q-1", 5).await, "takes only its last pod away, q-3");
    refused(hooks.create("default-8", 4, None).await, "fence 4 is behind 5");
    refused(hooks.destroy("default-7", 4).await, "fence 4 is behind 5");
    assert_eq!(scaled(&hooks).len(), 1);

    // A pod takes its time to go: until then its claim stays, and it is listed.
    fs::write(hooks.path("slow"), b"").expect("a file");
    assert_eq!(hooks.destroy("default-7", 5).await, Effect::InProgress);
    assert_eq!((hooks.destroy("default-7", 5).await, count(&hooks, "claims")), (Effect::InProgress, 4));
    assert_eq!(hooks.names().await, ["default-7", "q-0", "q-1", "q-2"]);
    fs::remove_file(hooks.path("pods/q-3")).expect("a pod");
    assert_eq!(hooks.destroy("default-7", 5).await, Effect::Done(()));
    assert_eq!((count(&hooks, "claims"), scaled(&hooks).len()), (3, 2));
    assert_eq!(hooks.names().await, ["q-0", "q-1", "q-2"]);
    for missing in ["default-7", "q-3", "q-9", "another-1"] {
        let ended = hooks.run("destroy", missing);
        assert_eq!(ended.code, Some(10), "{missing}: {}", ended.stderr);
    }
    assert_eq!(scaled(&hooks).len(), 2);
    hooks.refuses_what_is_no_name();
}

/// The note is written first: whoever comes after a crash scales for the same node.
#[tokio::test]
async fn a_creation_that_broke_off_is_finished_and_not_doubled() {
    let hooks = hooks();
    fs::write(hooks.path("notes"), "vecscale.fence 5\nvecscale.node/3 default-7\n").expect("a note");
    assert_eq!(hooks.names().await, ["q-0", "q-1", "q-2"]);
    assert_eq!(hooks.created("default-7").await.instance.as_deref(), Some("q-3"));
    assert_eq!(scaled(&hooks), ["scaled to 4"]);
    assert_eq!(hooks.created("default-8").await.instance.as_deref(), Some("q-4"));
    assert_eq!(hooks.names().await, ["default-7", "default-8", "q-0", "q-1", "q-2"]);
    assert_eq!(hooks.destroy("default-8", 5).await, Effect::Done(()));
    assert_eq!(hooks.destroy("default-7", 5).await, Effect::Done(()));
    assert_eq!(count(&hooks, "pods"), 3);
    // The cluster's own pods can go as well, by their own names.
    assert_eq!(hooks.destroy("q-2", 5).await, Effect::Done(()));
    assert_eq!((hooks.names().await, count(&hooks, "claims")), (vec!["q-0".into(), "q-1".into()], 2));
}
