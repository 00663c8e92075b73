//! What must hold of a site once an operation is over, whatever happened on the way.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use http::Method;

use super::site::{Books, COLLECTION, COPIES, Site};
use crate::model::{NodeId, OperationState};
use crate::replay::qdrant::{Body, Cluster, Reply};

impl Site {
    pub fn check(&self) -> Result<(), String> {
        let books = self.books();
        if let Some(broken) = books.broken() {
            return Err(broken.into());
        }
        self.check_points(&books)?;
        self.check_members(&books)?;
        self.check_marks(&books)
    }

    /// All that was acknowledged is there, in as many copies as are wanted, and nothing is on its way.
    fn check_points(&self, books: &Books) -> Result<(), String> {
        let cluster = self.wire.cluster();
        let census = cluster.census(COLLECTION);
        let missing = books.acked.iter().filter(|(id, hash)| census.points.get(id) != Some(hash)).count();
        if missing > 0 || !census.lost.is_empty() {
            return Err(format!("{missing} points are missing; shards {:?} are lost", census.lost));
        }
        if !census.differing.is_empty() && books.unsure == 0 {
            return Err(format!("the copies of shards {:?} differ", census.differing));
        }
        let fits = |copies: usize| match copies.cmp(&COPIES) {
            Ordering::Equal => true,
            // A move was given up over a node that was struck and has its copy all the same by now; or what was made anew for a
            // dead node is one too many, since another that was struck meanwhile came back with all that it had.
            Ordering::Greater => books.is_struck && (books.dead.is_some() || !has_succeeded(books)),
            // A dead node is still a member, and its copies are none; or a drop came late, or twice, and took the copy of a
            // later attempt.
            Ordering::Less => {
                let is_listed = books.dead.as_ref().is_some_and(|dead| is_member(&cluster, dead));
                copies > 0 && (is_listed || books.is_struck && books.has_echoes)
            }
        };
        if let Some((shard, copies)) = census.copies.iter().find(|(_, copies)| !fits(**copies)) {
            return Err(format!("shard {shard} has {copies} active copies"));
        }
        let transfers = cluster.transfers();
        if transfers.is_empty() { Ok(()) } else { Err(format!("still in transfer: {transfers:?}")) }
    }

    /// Each machine is a member that serves, and each member has one. A dead one that was replaced may stay; one that was
    /// not is still a member.
    fn check_members(&self, books: &Books) -> Result<(), String> {
        let cluster = self.wire.cluster();
        let registered = cluster.registered();
        let mut members = BTreeSet::new();
        for id in books.machines.keys() {
            let was_dead = books.dead.as_ref() == Some(id);
            match cluster.peer(id.as_str()).filter(|peer| registered.contains(peer)) {
                Some(_) if was_dead && has_succeeded(books) => {
                    return Err(format!("{id} was replaced and is a member"));
                }
                Some(peer) if was_dead || cluster.serves(id.as_str()) => drop(members.insert(peer)),
                Some(_) => return Err(format!("{id} is a member and does not serve")),
                None if was_dead => {}
                None => return Err(format!("{id} is a machine and no member")),
            }
        }
        match registered.iter().find(|peer| !members.contains(peer)) {
            Some(peer) => Err(format!("peer {peer} is a member without a machine")),
            None => Ok(()),
        }
    }

    /// No member is left cordoned.
    fn check_marks(&self, books: &Books) -> Result<(), String> {
        let mut cluster = self.wire.cluster();
        let registered = cluster.registered();
        let now = self.wire.now();
        let path = "/cluster/metadata/keys/vecscale_cordoned";
        let mut asked =
            books.machines.keys().map(|id| cluster.request(now, id.as_str(), Method::GET.as_str(), path, None));
        let told = asked.find_map(Reply::answer).ok_or("nobody tells of cordons")?;
        let Body::Json(told) = told.body else { return Err("cordons are not told in JSON".into()) };
        let mut peers = told["result"]["peers"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64);
        match peers.find(|peer| registered.contains(peer)) {
            Some(peer) => Err(format!("peer {peer} is left cordoned")),
            None => Ok(()),
        }
    }
}

fn has_succeeded(books: &Books) -> bool {
    books.operation.as_ref().is_some_and(|operation| operation.state == OperationState::Succeeded)
}

/// Whether the node is registered, dead or alive.
pub fn is_member(cluster: &Cluster, id: &NodeId) -> bool {
    cluster.peer(id.as_str()).is_some_and(|peer| cluster.registered().contains(&peer))
}
