//! When a copy may be made, when the old one may go, and how one under way is ended: tables.

use super::super::placement::seen_by_one;
use super::super::shift::{End, Next, Sight, Way, how_to_cancel, may_copy, may_drop};
use super::super::survey::{Asked, settle};
use super::super::told::{LocalView, OwnView};
use super::super::words::{NotTold, result};
use super::*;

/// A shard's copies: who has one, in what state, with how many points.
type Copies<'a> = &'a [(PeerId, &'a str, u64)];

const WAY: Way = Way { shard: 0, from: N1, to: N2 };

/// Every living member sees these copies of shard 0, and these transfers `(from, to, sync)`.
fn sight(dead: &[PeerId], wanted: u32, copies: Copies<'_>, transfers: &[(PeerId, PeerId, bool)]) -> Sight {
    let own = |peer: PeerId| -> Result<OwnView, NotTold> {
        match dead.contains(&peer) {
            true => Err(NotTold::Closed("refused".into())),
            false => result(as_told_by("cluster_3nodes_from_leader", peer)),
        }
    };
    let asked = [(1, N1), (2, N2), (3, N3)].map(|(n, peer)| Asked {
        machine: machine(n),
        own: own(peer),
        version: Some("1.19.0".into()),
    });
    let survey = settle(&asked, &BTreeMap::new()).expect("a cluster");
    let views = survey.living().map(|(own, _)| (own, seen_by_one("docs", view(own, copies, transfers)))).collect();
    Sight { survey, views, wanted, cordoned: Default::default() }
}

fn view(own: PeerId, copies: Copies<'_>, transfers: &[(PeerId, PeerId, bool)]) -> LocalView {
    let (local, remote): (Vec<_>, Vec<_>) = copies.iter().partition(|(peer, ..)| *peer == own);
    let told = json!({
        "peer_id": own, "shard_count": 1,
        "local_shards": local.iter().map(|(_, state, points)| {
            json!({"shard_id": 0, "points_count": points, "state": state})
        }).collect::<Vec<_>>(),
        "remote_shards": remote.iter().map(|(peer, state, _)| {
            json!({"shard_id": 0, "peer_id": peer, "state": state})
        }).collect::<Vec<_>>(),
        "shard_transfers": transfers.iter().map(|(from, to, sync)| {
            json!({"shard_id": 0, "from": from, "to": to, "sync": sync})
        }).collect::<Vec<_>>(),
    });
    serde_json::from_value(told).expect("a view")
}

fn told(next: Next) -> String {
    match next {
        Next::Refuse(why) => format!("refuse: {why}"),
        other => format!("{other:?}"),
    }
}

const WHOLE: &str = "Active";

#[test]
fn when_a_copy_may_be_made() {
    type Case<'a> = (&'a str, &'a [PeerId], u32, Copies<'a>, &'a [(PeerId, PeerId, bool)], bool, bool, &'a str);
    let cases: [Case<'_>; 15] = [
        ("one copy is relocated", &[], 1, &[(N1, WHOLE, 9)], &[], true, false, "Go"),
        ("a further copy", &[], 2, &[(N1, WHOLE, 9)], &[], false, false, "Go"),
        ("it runs already", &[], 1, &[(N1, WHOLE, 9), (N2, "Partial", 1)], &[(N1, N2, true)], true, true, "Done"),
        (
            "others move it",
            &[],
            1,
            &[(N1, WHOLE, 9)],
            &[(N1, N3, false)],
            true,
            false,
            "refuse: it is in transfer already, n1 -> n3",
        ),
        (
            "onto a whole copy: two would become one",
            &[],
            2,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9)],
            &[],
            true,
            false,
            "refuse: n2 has a copy already: 1 of 2",
        ),
        ("the same, made by us before", &[], 2, &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], true, true, "Done"),
        (
            "a third copy that is there",
            &[],
            2,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)],
            &[],
            true,
            false,
            "Done",
        ),
        ("replicated already", &[], 2, &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], false, false, "Done"),
        (
            "half a copy is there",
            &[],
            1,
            &[(N1, WHOLE, 9), (N2, "Partial", 1)],
            &[],
            true,
            false,
            "refuse: n2 has a copy that is not whole",
        ),
        (
            "a dead copy is there",
            &[],
            1,
            &[(N1, WHOLE, 9), (N2, "Dead", 1)],
            &[],
            true,
            false,
            "refuse: n2 has a copy that is not whole",
        ),
        (
            "the source is not whole",
            &[],
            1,
            &[(N1, "Recovery", 9), (N3, WHOLE, 9)],
            &[],
            true,
            false,
            "refuse: n1 has no active copy",
        ),
        ("the source has none", &[], 1, &[(N3, WHOLE, 9)], &[], true, false, "refuse: n1 has no active copy"),
        (
            "the target is dead, which Qdrant would not mind",
            &[N2],
            1,
            &[(N1, WHOLE, 9)],
            &[],
            true,
            false,
            "refuse: n2: it does not answer",
        ),
        ("the shard is lost", &[], 1, &[], &[], true, false, "refuse: no peer has a copy of docs/0"),
        ("a third member is dead", &[N3], 1, &[(N1, WHOLE, 9)], &[], true, false, "Go"),
    ];
    for (what, dead, wanted, copies, transfers, is_move, ours, expected) in cases {
        let next = told(may_copy(&sight(dead, wanted, copies, transfers), WAY, is_move, ours));
        assert!(next.starts_with(expected), "{what}: {next}");
    }
    let mut stale = sight(&[N3], 2, &[(N1, WHOLE, 9), (N3, WHOLE, 9)], &[(N3, N2, true)]);
    assert!(told(may_copy(&stale, WAY, false, false)).starts_with("refuse: it is in transfer"), "it may come back");
    stale.survey.long_silent.insert(N3);
    assert!(matches!(may_copy(&stale, WAY, false, false), Next::Clear(dead) if (dead.from, dead.to) == (N3, N2)));
    let mut cordoned = sight(&[], 1, &[(N1, WHOLE, 9)], &[]);
    cordoned.cordoned.insert(N2);
    assert_eq!(told(may_copy(&cordoned, WAY, true, false)), "refuse: n2 is cordoned");
    // One member has not heard of the new copy yet.
    let mut differ = sight(&[], 1, &[(N1, WHOLE, 9)], &[]);
    differ.views.insert(N3, seen_by_one("docs", view(N3, &[(N1, WHOLE, 9), (N2, "Partial", 1)], &[])));
    assert!(told(may_copy(&differ, WAY, true, false)).starts_with("refuse"));
}

#[test]
fn when_the_old_copy_may_go() {
    type Case<'a> = (&'a str, &'a [PeerId], u32, Copies<'a>, &'a [(PeerId, PeerId, bool)], Option<usize>, &'a str);
    let cases: [Case<'_>; 16] = [
        ("both are whole", &[], 1, &[(N1, WHOLE, 5000), (N2, WHOLE, 5000)], &[], Some(1), "Go"),
        ("writes went on", &[], 1, &[(N1, WHOLE, 5000), (N2, WHOLE, 4960)], &[], Some(1), "Go"),
        (
            "the new one is far behind",
            &[],
            1,
            &[(N1, WHOLE, 5000), (N2, WHOLE, 4000)],
            &[],
            Some(1),
            "refuse: the new copy has 4000 points, the old one 5000",
        ),
        ("it is in transfer", &[], 1, &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[(N1, N2, true)], Some(1), "Wait"),
        ("it is not whole yet", &[], 1, &[(N1, WHOLE, 9), (N2, "Partial", 9)], &[], Some(1), "Wait"),
        ("there is no new one", &[], 1, &[(N1, WHOLE, 9)], &[], Some(1), "refuse: n2 has no copy"),
        ("it has gone already", &[], 1, &[(N2, WHOLE, 9)], &[], Some(1), "Done"),
        ("both have gone", &[], 1, &[(N3, WHOLE, 9)], &[], Some(1), "refuse: n2 has no whole copy"),
        ("of a shard that was short before, by us", &[], 2, &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], Some(1), "Go"),
        (
            "the copy beside it died while this one was made",
            &[N3],
            2,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)],
            &[],
            Some(2),
            "refuse: 1 active copies would be left, and there were 2 before the move",
        ),
        (
            "too few would be left, unless they were fewer before, which nobody knows any more",
            &[],
            2,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9)],
            &[],
            None,
            "refuse: 1 of 2 active copies would be left; whether there were fewer before is not known any more",
        ),
        ("one is wanted, and that is known", &[], 1, &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], None, "Go"),
        ("three of two", &[], 2, &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)], &[], None, "Go"),
        (
            "one of the three is on a dead node",
            &[N3],
            2,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)],
            &[],
            None,
            "refuse: 1 of 2",
        ),
        (
            "the new one is on a dead node",
            &[N2],
            1,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9)],
            &[],
            Some(1),
            "refuse: source and target do not both answer",
        ),
        (
            "neither copy of the two is ours to judge",
            &[N2, N3],
            1,
            &[(N1, WHOLE, 9), (N2, WHOLE, 9)],
            &[],
            Some(1),
            "refuse: source and target",
        ),
    ];
    for (what, dead, wanted, copies, transfers, before, expected) in cases {
        let next = told(may_drop(&sight(dead, wanted, copies, transfers), WAY, before));
        assert!(next.starts_with(expected), "{what}: {next}");
    }
    let both: Copies<'_> = &[(N1, WHOLE, 9), (N2, WHOLE, 9)];
    for (what, other) in [
        ("one member still lists the transfer", view(N3, both, &[(N1, N2, true)])),
        ("one member has not seen it whole", view(N3, &[(N1, WHOLE, 9), (N2, "Partial", 9)], &[])),
        ("one member has seen the old one go", view(N3, &[(N2, WHOLE, 9)], &[])),
    ] {
        let mut differ = sight(&[], 1, both, &[]);
        differ.views.insert(N3, seen_by_one("docs", other));
        assert_eq!(told(may_drop(&differ, WAY, Some(1))), "Wait", "{what}");
    }
    // Of one key it is not told how many are wanted: a copy on a dead node may be.
    for (dead, copies, expected) in [
        (&[] as &[PeerId], both, "Go"),
        (&[N3], &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)], "refuse: 1 of 2 active copies"),
    ] {
        let mut keyed = sight(dead, 1, copies, &[]);
        keyed.views.values_mut().for_each(|view| view.is_keyed = true);
        let next = told(may_drop(&keyed, WAY, None));
        assert!(next.starts_with(expected), "{copies:?}: {next}");
    }
}

#[test]
fn how_a_copy_under_way_is_ended() {
    type Case<'a> = (&'a str, &'a [PeerId], Copies<'a>, &'a [(PeerId, PeerId, bool)], bool, End);
    let refuse = |why: &str| End::Refuse(why.into());
    let cases: [Case<'_>; 12] = [
        (
            "ours: aborted it would start again",
            &[],
            &[(N1, WHOLE, 9), (N2, "Partial", 1)],
            &[(N1, N2, true)],
            true,
            End::DropTarget,
        ),
        ("a move of others", &[], &[(N1, WHOLE, 9), (N2, "Partial", 1)], &[(N1, N2, false)], false, End::Abort),
        (
            "the source of a move died",
            &[N1],
            &[(N1, WHOLE, 9), (N2, "Partial", 1)],
            &[(N1, N2, false)],
            false,
            End::Abort,
        ),
        ("the source of ours died", &[N1], &[(N1, WHOLE, 9), (N2, "Partial", 1)], &[(N1, N2, true)], true, End::Abort),
        ("nothing is there", &[], &[(N1, WHOLE, 9)], &[], true, End::Done),
        ("what an abort left behind", &[], &[(N1, WHOLE, 9), (N2, "Dead", 1)], &[], false, End::DropTarget),
        ("whole, and the old one not dropped yet", &[], &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], true, End::DropTarget),
        ("whole, and not ours", &[], &[(N1, WHOLE, 9), (N2, WHOLE, 9)], &[], false, End::Done),
        ("it has ended", &[], &[(N2, WHOLE, 9)], &[], true, refuse("the move has ended: n1 no longer holds it")),
        (
            "whole, and the source is dead: it stays",
            &[N1],
            &[(N1, WHOLE, 9), (N2, WHOLE, 9)],
            &[],
            true,
            refuse("n1 is not there to keep its copy"),
        ),
        (
            "half, the source is dead, and another lives",
            &[N1],
            &[(N1, WHOLE, 9), (N2, "Partial", 1), (N3, WHOLE, 9)],
            &[],
            true,
            End::DropTarget,
        ),
        (
            "half, and the source is dead",
            &[N1],
            &[(N1, WHOLE, 9), (N2, "Partial", 1)],
            &[],
            true,
            refuse("n1 is not there to keep its copy"),
        ),
    ];
    for (what, dead, copies, transfers, ours, expected) in cases {
        assert_eq!(how_to_cancel(&sight(dead, 1, copies, transfers), WAY, ours), expected, "{what}");
    }
    // Whole on one member's word it may be the only one that can be read.
    let copies: Copies<'_> = &[(N1, WHOLE, 9), (N2, "Partial", 1), (N3, WHOLE, 9)];
    let mut differ = sight(&[N1], 1, copies, &[]);
    differ.views.insert(N3, seen_by_one("docs", view(N3, &[(N1, WHOLE, 9), (N2, WHOLE, 9), (N3, WHOLE, 9)], &[])));
    assert_eq!(how_to_cancel(&differ, WAY, true), refuse("n1 is not there to keep its copy"));
}
