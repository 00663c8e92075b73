//! Whatever the machines say, no member is lost or doubled.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::survey::{Asked, learn, settle};
use super::super::told::OwnView;
use super::super::words::NotTold;
use super::*;

/// What a machine may say: members 1 to 5, of whom it is one or not.
fn own_view() -> impl Strategy<Value = OwnView> {
    let of = (1..6u64, prop::collection::btree_set(1..6u64, 0..5), 0..4u64, 0..6u64, any::<bool>(), 0..4u8);
    of.prop_map(|(peer, peers, commit, leader, is_voter, kind)| {
        let peers: BTreeMap<String, Value> = peers
            .into_iter()
            .chain((kind > 0).then_some(peer))
            .map(|peer| (peer.to_string(), json!({"uri": format!("http://127.0.10.{peer}:6335/")})))
            .collect();
        let told = json!({
            "status": if kind == 3 { "disabled" } else { "enabled" }, "peer_id": peer, "peers": peers,
            "raft_info": {"commit": commit * 15, "pending_operations": commit, "leader": leader, "is_voter": is_voter},
            "consensus_thread_status": {"consensus_thread_status": if kind == 2 { "stopped" } else { "working" }},
        });
        serde_json::from_str(&told.to_string()).expect("a view")
    })
}

fn speaks() -> impl Strategy<Value = Result<OwnView, NotTold>> {
    own_view().prop_map(Ok)
}

fn is_silent() -> impl Strategy<Value = Result<OwnView, NotTold>> {
    prop_oneof![Just(Err(NotTold::Closed("refused".into()))), Just(Err(NotTold::Hung("3 s".into())))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn every_registered_member_is_seen_once_under_a_name_of_its_own(
        told in prop::collection::vec(prop_oneof![3 => speaks(), 1 => is_silent()], 1..5),
        known in prop::collection::btree_map(1..6u64, 1..7u8, 0..5),
    ) {
        let asked: Vec<Asked> = (1..).zip(told).map(|(n, own)| {
            Asked { machine: machine(n), own, version: None }
        }).collect();
        let known = known.into_iter().map(|(peer, n)| (peer, id(&format!("n{n}")))).collect();
        let Ok(survey) = settle(&asked, &known) else { return Ok(()) };
        let reference = survey.peers[&survey.reference].own.as_ref().expect("it answers");
        prop_assert!(reference.is_working());
        prop_assert!(survey.peers.keys().eq(reference.peers.keys()));
        let names: BTreeSet<_> = survey.peers.values().map(|peer| &peer.node).collect();
        prop_assert_eq!(names.len(), survey.peers.len(), "{:?}", survey);
        for (number, peer) in &survey.peers {
            prop_assert!(peer.own.as_ref().is_none_or(|own| own.peer_id == *number));
            prop_assert_eq!(survey.peer_of(&peer.node), Some(*number));
        }
        if survey.no_quorum.is_none() {
            let leader = survey.leader.expect("one is named");
            prop_assert!(survey.is_living(leader));
            let votes = survey.living().filter(|(_, p)| p.own.as_ref().is_some_and(|own| own.raft_info.is_voter)).count();
            let silent = survey.peers.values().filter(|peer| peer.own.is_none()).count();
            prop_assert!(votes > silent, "the silent may all have a vote");
        }
    }
}

#[test]
fn a_name_is_of_the_member_that_said_it_last() {
    let mut names = BTreeMap::from([(N1, id("n1")), (N3, id("n3"))]);
    learn(&mut names, BTreeMap::from([(N4, id("n3")), (N1, id("n1"))]));
    assert_eq!(names, BTreeMap::from([(N1, id("n1")), (N4, id("n3"))]));
}
