//! The world against what the journal explains: orphans, ghosts, left-over cordons, changes by other hands. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{
    Inventory, Machine, Member, NodeId, Operation, OperationId, StepAction, StepState, Timestamp, Unexplained,
    UnexplainedKind,
};

/// The nodes that the pool consisted of when all of them were last explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Census {
    pub at: Timestamp,
    pub nodes: BTreeSet<NodeId>,
}

/// What the world is held against.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a> {
    /// `None` before the first look of the very first start.
    pub census: Option<&'a Census>,
    pub lost: &'a BTreeSet<NodeId>,
    /// Nodes that operations account for, and that no look since has settled.
    pub touched: &'a BTreeSet<NodeId>,
    /// Nodes that a person had emptied: their cordon is meant.
    pub drained: &'a BTreeMap<NodeId, OperationId>,
    pub operation: Option<&'a Operation>,
    /// Nodes come and go by other hands: who is a member and well belongs, whether or not anything lists it.
    pub by_other_hands: bool,
}

impl Explained<'_> {
    fn covers(&self, id: &NodeId) -> bool {
        let concerned = |o: &Operation| o.nodes.contains(id) || o.replaces.as_ref() == Some(id);
        self.lost.contains(id) || self.touched.contains(id) || self.operation.is_some_and(concerned)
    }
}

/// The nodes of the pool as it is now: members, or machines where nodes hold no data.
pub fn present(machines: &[Machine], inventory: Option<&Inventory>) -> BTreeSet<NodeId> {
    match inventory {
        Some(inventory) => inventory.members.iter().map(|m| m.id.clone()).collect(),
        None => machines.iter().map(|m| m.id.clone()).collect(),
    }
}

/// Everything that nothing explains, each node once. Reported, and never removed by itself.
pub fn unexplained(machines: &[Machine], inventory: Option<&Inventory>, explained: Explained<'_>) -> Vec<Unexplained> {
    use UnexplainedKind::*;
    let listed: BTreeSet<&NodeId> = machines.iter().map(|m| &m.id).collect();
    let mut found: BTreeMap<NodeId, (UnexplainedKind, &str)> = BTreeMap::new();
    let mut note = |id: &NodeId, kind, what| {
        if !explained.covers(id) {
            found.entry(id.clone()).or_insert((kind, what));
        }
    };
    if let Some(inventory) = inventory {
        for id in listed.iter().filter(|id| inventory.member(id).is_none()) {
            note(id, OrphanInstance, "the provider runs it, the datastore does not know it");
        }
        let belongs = |m: &Member| listed.contains(&m.id) || explained.by_other_hands && m.healthy;
        for member in inventory.members.iter().filter(|m| !belongs(m)) {
            note(&member.id, GhostMember, "the datastore lists it, the provider does not know it");
        }
        for member in inventory.members.iter().filter(|m| m.cordoned && !explained.drained.contains_key(&m.id)) {
            note(&member.id, LeftOverCordon, "it is cordoned and no operation is open for it");
        }
    }
    if let Some(census) = explained.census.filter(|_| !explained.by_other_hands) {
        let present = present(machines, inventory);
        for id in present.difference(&census.nodes) {
            note(id, ForeignChange, "it has come by other hands");
        }
        for id in census.nodes.difference(&present) {
            note(id, ForeignChange, "it has gone by other hands");
        }
    }
    found
        .into_iter()
        .map(|(node, (kind, what))| Unexplained { kind, detail: format!("{node}: {what}"), node })
        .collect()
}

/// Members, and machines that answer and are none yet, of which the census does not know.
pub fn arrivals(inventory: &Inventory, answering: &BTreeSet<NodeId>, census: &Census) -> Vec<NodeId> {
    let members: BTreeSet<NodeId> = inventory.members.iter().map(|m| m.id.clone()).collect();
    members.union(answering).filter(|id| !census.nodes.contains(id)).cloned().collect()
}

/// The census after `touched` nodes, which operations or people account for, are taken as they are now.
pub fn settled(census: &Census, touched: &BTreeSet<NodeId>, present: &BTreeSet<NodeId>, at: Timestamp) -> Census {
    let mut nodes = census.nodes.clone();
    for id in touched {
        if present.contains(id) {
            nodes.insert(id.clone())
        } else {
            nodes.remove(id)
        };
    }
    Census { at, nodes }
}

/// The nodes that an operation accounts for.
pub fn touched_by(operation: &Operation) -> impl Iterator<Item = &NodeId> {
    operation.nodes.iter().chain(&operation.replaces)
}

/// Nodes that operations of ours have cordoned, with the newest such operation. `past` is newest first.
pub fn cordoned_by<'a>(past: impl IntoIterator<Item = &'a Operation>) -> BTreeMap<NodeId, OperationId> {
    let mut cordoned = BTreeMap::new();
    for operation in past {
        for step in &operation.steps {
            if let StepAction::Cordon { node } = &step.action
                && !matches!(step.state, StepState::Waiting | StepState::Skipped)
            {
                cordoned.entry(node.clone()).or_insert_with(|| operation.id.clone());
            }
        }
    }
    cordoned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Trigger};

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a name")
    }

    fn machines(names: &[&str]) -> Vec<Machine> {
        let machine = |name: &&str| Machine {
            id: id(name),
            address: format!("http://{name}"),
            zone: None,
            instance: None,
            ready: None,
        };
        names.iter().map(machine).collect()
    }

    /// A name with `!` behind it is cordoned.
    fn members(names: &[&str]) -> Inventory {
        let member = |name: &&str| Member {
            cordoned: name.ends_with('!'),
            ..Member::new(id(name.trim_end_matches('!')), String::new())
        };
        Inventory { members: names.iter().map(member).collect(), ..Inventory::default() }
    }

    fn names(list: &[&str]) -> BTreeSet<NodeId> {
        list.iter().map(|name| id(name)).collect()
    }

    const AT: Timestamp = Timestamp::from_millis(0);
    static NOTHING: BTreeSet<NodeId> = BTreeSet::new();
    static UNDRAINED: BTreeMap<NodeId, OperationId> = BTreeMap::new();

    /// Nothing but what was touched.
    fn explained(touched: &BTreeSet<NodeId>) -> Explained<'_> {
        Explained { census: None, lost: &NOTHING, touched, drained: &UNDRAINED, operation: None, by_other_hands: false }
    }

    #[test]
    fn where_nodes_come_by_other_hands_a_well_member_belongs() {
        use UnexplainedKind::*;
        let census = Census { at: AT, nodes: names(&["a"]) };
        let others = Explained { census: Some(&census), by_other_hands: true, ..explained(&NOTHING) };
        let found = |listed: &[&str], inventory: &Inventory, explained| -> Vec<(String, UnexplainedKind)> {
            let found = unexplained(&machines(listed), Some(inventory), explained);
            found.into_iter().map(|u| (u.node.to_string(), u.kind)).collect()
        };
        let mut inventory = members(&["a", "b", "c!"]);
        assert_eq!(found(&[], &inventory, others), [("c".into(), LeftOverCordon)], "nothing is listed at all");
        let drained = BTreeMap::from([(id("c"), OperationId("op".into()))]);
        assert_eq!(found(&["a"], &inventory, Explained { drained: &drained, ..others }), []);
        inventory.members[1].healthy = false;
        assert_eq!(
            found(&["a", "c"], &inventory, Explained { drained: &drained, ..others }),
            [("b".into(), GhostMember)]
        );
        assert_eq!(
            found(&["a", "d"], &members(&["a"]), others),
            [("d".into(), OrphanInstance)],
            "listed, and no member"
        );
    }

    #[test]
    fn who_is_new() {
        // members, machines that answer, census; who has come
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let cases: [Case; 5] = [
            (&["a"], &["a"], &["a"], &[]),
            (&["a", "b"], &[], &["a"], &["b"]),
            (&["a"], &["a", "b"], &["a"], &["b"]),
            (&["a", "c"], &["b", "c"], &["a"], &["b", "c"]),
            (&["a"], &["a"], &["a", "b"], &[]),
        ];
        for (members_, answering, census, expected) in cases {
            let census = Census { at: AT, nodes: names(census) };
            let found = arrivals(&members(members_), &names(answering), &census);
            assert_eq!(found, expected.iter().map(|name| id(name)).collect::<Vec<_>>(), "{members_:?}, {answering:?}");
        }
    }

    #[test]
    fn each_difference_has_its_kind() {
        // machines, members (None: no datastore), census, lost, what is told
        type Case<'a> =
            (&'a [&'a str], Option<&'a [&'a str]>, &'a [&'a str], &'a [&'a str], &'a [(&'a str, UnexplainedKind)]);
        use UnexplainedKind::*;
        let cases: [Case; 10] = [
            (&["a", "b"], Some(&["a", "b"]), &["a", "b"], &[], &[]),
            (&["a", "b"], Some(&["a"]), &["a"], &[], &[("b", OrphanInstance)]),
            (&["a"], Some(&["a", "b"]), &["a", "b"], &[], &[("b", GhostMember)]),
            (&["a", "b"], Some(&["a", "b!"]), &["a", "b"], &[], &[("b", LeftOverCordon)]),
            (&["a", "b"], Some(&["a", "b"]), &["a"], &[], &[("b", ForeignChange)]),
            (&["a"], Some(&["a"]), &["a", "b"], &[], &[("b", ForeignChange)]),
            (&["a"], None, &["a", "b"], &[], &[("b", ForeignChange)]),
            (&["a", "b"], None, &["a"], &[], &[("b", ForeignChange)]),
            (&["a", "b"], Some(&["a"]), &["a"], &["b"], &[]),
            // A member of the census that fell out of the cluster is told once, by what it is now.
            (&["a", "b"], Some(&["a"]), &["a", "b"], &[], &[("b", OrphanInstance)]),
        ];
        for (machines_, members_, census, lost, told) in cases {
            let census = Census { at: AT, nodes: names(census) };
            let (lost, touched) = (names(lost), BTreeSet::new());
            let explained = Explained { census: Some(&census), lost: &lost, ..explained(&touched) };
            let inventory = members_.map(members);
            let found = unexplained(&machines(machines_), inventory.as_ref(), explained);
            let found: Vec<(&str, UnexplainedKind)> = found.iter().map(|u| (u.node.as_str(), u.kind)).collect();
            assert_eq!(found, told, "machines {machines_:?}, members {members_:?}");
        }
    }

    #[test]
    fn what_an_operation_touched_is_explained_by_it() {
        let operation = Operation {
            nodes: vec![id("c")],
            replaces: Some(id("b")),
            ..Operation::new(OperationId("op".into()), "p".into(), Kind::Replace, Trigger::Availability, "vecscale", AT)
        };
        let census = Census { at: AT, nodes: names(&["a", "b"]) };
        let none = BTreeSet::new();
        let all_told = Explained { census: Some(&census), operation: Some(&operation), ..explained(&none) };
        let (machines, inventory) = (machines(&["a", "b", "c"]), members(&["a", "c"]));
        assert_eq!(unexplained(&machines, Some(&inventory), all_told), []);
        let touched: BTreeSet<NodeId> = touched_by(&operation).cloned().collect();
        let just_ended = Explained { census: Some(&census), ..explained(&touched) };
        assert_eq!(unexplained(&machines, Some(&inventory), just_ended), []);
        let after = settled(&census, &touched, &present(&machines, Some(&inventory)), AT);
        assert_eq!(after.nodes, names(&["a", "c"]));
    }
}
