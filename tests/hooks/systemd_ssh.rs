//! Against a double of `ssh` that runs its command line as a far shell would, with a `systemctl` of ours on each host.

use super::*;

const SSH: &str = r#"#!/bin/sh
# ssh -n -o … -o … -- HOST WORDS…
echo "ssh $*" >> "$DOUBLE/ledger"
while [ "$1" != -- ]; do shift; done
export FAR="$DOUBLE/hosts/$2"
shift 2
[ -d "$FAR" ] || { echo "no route to host" >&2; exit 255; }
exec sh -c "$*"
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
for unit; do :; done
case $1 in
  is-active) [ -e "$FAR/$unit" ] && echo active && exit 0; echo inactive; exit 3 ;;
  enable) touch "$FAR/$unit" "$FAR/$unit.data" && echo "started $unit ${FAR##*/}" >> "$DOUBLE/ledger" ;;
  disable) rm -f "$FAR/$unit" ;;
  clean) [ ! -e "$FAR/$unit" ] || exit 1; rm -f "$FAR/$unit.data" ;;
  *) exit 1 ;;
esac
"#;

fn hooks() -> Hooks {
    let mut hooks = Hooks::new("systemd-ssh", &[]);
    hooks.double("ssh", SSH);
    hooks.double("systemctl", SYSTEMCTL);
    for host in ["alpha", "beta", "gamma"] {
        fs::create_dir_all(hooks.path("hosts").join(host)).expect("a host");
    }
    fs::write(hooks.path("hosts.list"), "# ours\nalpha a\nbeta b\n-oProxyCommand=x\ngamma b\n").expect("the hosts");
    hooks.env.insert("HOSTS".into(), hooks.path("hosts.list").display().to_string());
    fs::create_dir_all(hooks.path("state/default/nodes")).expect("a folder");
    hooks
}

fn started(hooks: &Hooks) -> usize {
    hooks.ledger().iter().filter(|line| line.starts_with("started")).count()
}

#[tokio::test]
async fn a_node_gets_a_free_host_once_and_leaves_nothing_behind() {
    let hooks = hooks();
    assert_eq!(hooks.names().await, [""; 0]);
    let machine = hooks.created("default-1").await;
    assert_eq!((machine.address.as_str(), machine.instance.as_deref()), ("http://alpha:6333", Some("alpha")));
    assert_eq!((hooks.created("default-1").await, started(&hooks)), (machine.clone(), 1), "asked twice, made once");
    assert_eq!(hooks.run("create", "default-1").code, Some(10));
    assert_eq!(hooks.created("default-2").await.instance.as_deref(), Some("beta"));
    let listed = hooks.listed().await;
    let of = |m: &Machine| (m.id.to_string(), m.zone.clone().unwrap_or_default(), m.ready);
    let expected = [("default-1", "a"), ("default-2", "b")].map(|(id, zone)| (id.into(), zone.into(), Some(true)));
    assert_eq!(listed.iter().map(of).collect::<Vec<_>>(), expected);

    refused(hooks.create("default-3", 4, None).await, "fence 4 is behind 5");
    refused(hooks.destroy("default-1", 4).await, "fence 4 is behind 5");
    assert_eq!(hooks.destroy("default-1", 6).await, Effect::Done(()));
    assert_eq!(fs::read_dir(hooks.path("hosts/alpha")).expect("the host").count(), 0, "unit and data are gone");
    assert_eq!(hooks.names().await, ["default-2"]);
    assert_eq!(hooks.destroy("default-1", 6).await, Effect::Done(()), "gone already");
    hooks.refuses_what_is_no_name();
}

#[tokio::test]
async fn a_zone_is_kept_to_and_a_full_house_says_so() {
    let hooks = hooks();
    let Effect::Done(machine) = hooks.create("default-1", 5, Some("b")).await else { panic!("a free host in zone b") };
    assert_eq!(machine.instance.as_deref(), Some("beta"));
    fs::rename(hooks.path("hosts/gamma"), hooks.path("gone")).expect("a dead host");
    refused(hooks.create("default-2", 5, Some("b")).await, "no free host that answers in");
    assert_eq!(started(&hooks), 1);
    assert_eq!(hooks.names().await, ["default-1"], "what was refused left nothing");
}

#[tokio::test]
async fn a_silent_host_is_not_ready_and_not_gone() {
    let hooks = hooks();
    hooks.created("default-1").await;
    fs::rename(hooks.path("hosts/alpha"), hooks.path("gone")).expect("a dead host");
    let listed = hooks.listed().await;
    assert_eq!((listed[0].id.as_str(), listed[0].ready), ("default-1", Some(false)));
    assert!(matches!(hooks.destroy("default-1", 5).await, Effect::Unknown(_)), "nobody knows what a dead host does");
    assert_eq!(hooks.names().await, ["default-1"]);
    assert!(!hooks.ledger().iter().any(|line| line.contains("Proxy")), "what is no host in the file is passed over");
    fs::remove_dir_all(hooks.path("state")).expect("a folder");
    assert!(hooks.provider().list().await.is_err(), "what was remembered is lost: that is no empty pool");
}
