//! Empties one node. Its copies are all that moves, so every plan moves the same bytes: what is looked for is a place for
//! each, and then the most even one.

use super::layout::{Layout, Shard, Weight, less, sum};
use super::limits::Limits;
use super::state::Step;
use super::{Infeasible, Plan, report};
use crate::model::NodeId;
use crate::units;

/// Attempts at fitting the copies into what room there is, at most.
const ATTEMPTS: u32 = 20_000;

/// The plan that empties `victim`, largest copy first. A shard in transfer is left out: plan again when it has arrived.
///
/// # Errors
/// When not every copy of the victim has a place: nothing is planned then.
pub(in crate::operate) fn drain(layout: &Layout, victim: &NodeId) -> Result<Plan, Infeasible> {
    let (place, held) = held(layout, victim)?;
    let choices = choices(layout, place, &held)?;
    let mut packing = Packing::new(layout, place);
    let (options, targets) = packing.packed(victim, &held, &choices)?;
    let targets = packing.evened(&held, &options, targets);
    let steps: Vec<Step> = held.into_iter().zip(targets).collect();
    Ok(report::drain(layout, place, &steps))
}

/// How many copies and bytes would have to leave `victim`, without saying where to.
///
/// # Errors
/// As [`drain`]: when not every copy of the victim has a place.
pub(in crate::operate) fn possible(layout: &Layout, victim: &NodeId) -> Result<(u32, u64), Infeasible> {
    let (place, held) = held(layout, victim)?;
    if layout.nodes.iter().any(|node| node.room.is_some()) {
        let choices = choices(layout, place, &held)?;
        Packing::new(layout, place).packed(victim, &held, &choices)?;
    } else if let Some(&stuck) = held.iter().find(|&&c| free_nodes(layout, c, place).next().is_none()) {
        return Err(no_place(layout, stuck, others(layout, place)));
    }
    let bytes = held.iter().map(|&c| layout.copies[c].replica.bytes).sum();
    Ok((held.len() as u32, bytes))
}

/// The victim and the copies that have to leave it, largest first.
fn held(layout: &Layout, victim: &NodeId) -> Result<(usize, Vec<usize>), Infeasible> {
    let member = layout.inventory.member(victim).and_then(|member| layout.place(&member.id));
    let Some(place) = member else { return Err(Infeasible::NotAMember(victim.clone())) };
    let copies = &layout.copies;
    let moves = |&c: &usize| copies[c].home == place && !layout.shards[copies[c].shard].in_transfer;
    let mut held: Vec<usize> = (0..copies.len()).filter(moves).collect();
    held.sort_by_key(|&c| (std::cmp::Reverse(copies[c].replica.bytes), c));
    for &c in &held {
        let replica = copies[c].replica;
        if !copies[c].free {
            return Err(Infeasible::NotActive { shard: replica.shard.clone(), node: victim.clone() });
        }
        if layout.placing.rules.pinned(&replica.shard) {
            return Err(Infeasible::Pinned { shard: replica.shard.clone(), node: victim.clone() });
        }
    }
    Ok((place, held))
}

/// The open nodes that have no copy of the same shard, and may be given one.
fn free_nodes(layout: &Layout, copy: usize, victim: usize) -> impl Iterator<Item = usize> {
    let Shard { holders, given_up, .. } = &layout.shards[layout.copies[copy].shard];
    let free = move |n: &usize| !holders.contains(n) && !given_up.contains(n);
    (0..layout.nodes.len()).filter(move |n| layout.nodes[*n].open && *n != victim && free(n))
}

fn others(layout: &Layout, victim: usize) -> usize {
    layout.nodes.iter().enumerate().filter(|(n, node)| node.open && *n != victim).count()
}

pub(super) fn no_place(layout: &Layout, copy: usize, open: usize) -> Infeasible {
    let given_up = &layout.shards[layout.copies[copy].shard].given_up;
    let why = match open {
        0 => "no other node is healthy and open".to_string(),
        n if given_up.is_empty() => format!("each of the {n} other open nodes has a copy of it"),
        n => {
            let names: Vec<&str> = given_up.iter().map(|&node| layout.nodes[node].id.as_str()).collect();
            let names = names.join(", ");
            format!(
                "of the {n} other open nodes each has a copy of it, or was asked to drop one and may yet do so ({names})"
            )
        }
    };
    Infeasible::NoPlace { shard: layout.copies[copy].replica.shard.clone(), why }
}

/// Where one copy may go.
struct Choice {
    /// Where its zones are least crowded.
    best: Vec<usize>,
    all: Vec<usize>,
}

fn choices(layout: &Layout, victim: usize, held: &[usize]) -> Result<Vec<Choice>, Infeasible> {
    let zones = layout.zones(Some(victim));
    let choice = |&copy: &usize| {
        let holders = &layout.shards[layout.copies[copy].shard].holders;
        let all: Vec<usize> = free_nodes(layout, copy, victim).collect();
        if all.is_empty() {
            return Err(no_place(layout, copy, others(layout, victim)));
        }
        let best = least_crowded(layout, &all, zones, || holders.iter().copied().filter(|&n| n != victim));
        Ok(Choice { best, all })
    };
    held.iter().map(choice).collect()
}

/// Of `options`, those that crowd the zones least together with the other `holders`.
pub(super) fn least_crowded<I: Iterator<Item = usize>>(
    layout: &Layout,
    options: &[usize],
    zones: usize,
    holders: impl Fn() -> I,
) -> Vec<usize> {
    if zones < 2 {
        return options.to_vec();
    }
    let crowding: Vec<usize> = options.iter().map(|&n| layout.crowding(holders().chain([n]), zones)).collect();
    let least = crowding.iter().min().copied();
    options.iter().zip(crowding).filter(|(_, crowding)| Some(*crowding) == least).map(|(&n, _)| n).collect()
}

/// What each node holds, and what comes to it.
struct Packing<'l, 'a> {
    layout: &'l Layout<'a>,
    limits: Limits,
    weight: Vec<Weight>,
    /// Bytes that come, and those of the largest copy among them.
    coming: Vec<(u64, u64)>,
}

impl<'l, 'a> Packing<'l, 'a> {
    fn new(layout: &'l Layout<'a>, victim: usize) -> Packing<'l, 'a> {
        let weight: Vec<Weight> = layout.nodes.iter().map(|node| node.weight).collect();
        let coming = vec![(0, 0); weight.len()];
        Packing { layout, limits: Limits::of(layout, Some(victim), 0.0), weight, coming }
    }

    fn share_with(&self, node: usize, copy: usize) -> f64 {
        self.limits.share(sum(self.weight[node], self.layout.copies[copy].weight))
    }

    /// Largest first, so that the first that comes is the largest.
    fn has_room(&self, node: usize, copy: usize) -> bool {
        let Some(room) = self.layout.nodes[node].room else { return true };
        let bytes = self.layout.copies[copy].replica.bytes;
        let (all, largest) = self.coming[node];
        all + bytes + largest.max(bytes) / 2 <= room
    }

    fn add(&mut self, node: usize, copy: usize) {
        let copy = &self.layout.copies[copy];
        self.weight[node] = sum(self.weight[node], copy.weight);
        let (all, largest) = self.coming[node];
        self.coming[node] = (all + copy.replica.bytes, largest.max(copy.replica.bytes));
    }

    fn take(&mut self, node: usize, copy: usize, coming: (u64, u64)) {
        self.weight[node] = less(self.weight[node], self.layout.copies[copy].weight);
        self.coming[node] = coming;
    }

    /// The options that were packed with, and the target of each copy.
    fn packed<'c>(
        &mut self,
        victim: &NodeId,
        held: &[usize],
        choices: &'c [Choice],
    ) -> Result<(Vec<&'c [usize]>, Vec<usize>), Infeasible> {
        // The zones are kept unless there is no room otherwise.
        for wide in [false, true] {
            let options = choices.iter().map(|choice| if wide { &choice.all[..] } else { &choice.best[..] });
            let options: Vec<&[usize]> = options.collect();
            if let Some(targets) = self.pack(held, &options) {
                return Ok((options, targets));
            }
        }
        let bytes = |&c: &usize| self.layout.copies[c].replica.bytes;
        let all = units::bytes(held.iter().map(bytes).sum());
        let why = format!("the other nodes have no room for all that {victim} holds ({all})");
        let shard = held.first().map(|&c| self.layout.copies[c].replica.shard.clone());
        // Nothing held is packed at once, so there is a first.
        shard.map_or(Ok((Vec::new(), Vec::new())), |shard| Err(Infeasible::NoPlace { shard, why }))
    }

    /// A target for each copy: the node that is then least full; where that leaves one without room, any that fits.
    fn pack(&mut self, copies: &[usize], options: &[&[usize]]) -> Option<Vec<usize>> {
        let mut targets = Vec::new();
        for (&c, options) in copies.iter().zip(options) {
            let fits = options.iter().copied().filter(|&n| self.has_room(n, c));
            let fullness = |n: &usize| (self.share_with(*n, c), self.layout.nodes[*n].load);
            let Some(to) = fits.min_by(|a, b| {
                let (a, b) = (fullness(a), fullness(b));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            }) else {
                break;
            };
            self.add(to, c);
            targets.push(to);
        }
        if targets.len() == copies.len() {
            return Some(targets);
        }
        for (&c, &to) in copies.iter().zip(&targets) {
            self.take(to, c, (0, 0));
        }
        let mut left = ATTEMPTS;
        targets.clear();
        self.fit(copies, options, &mut targets, &mut left).then_some(targets)
    }

    fn fit(&mut self, copies: &[usize], options: &[&[usize]], targets: &mut Vec<usize>, left: &mut u32) -> bool {
        let Some(&c) = copies.get(targets.len()) else { return true };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        for &to in options[targets.len()] {
            if !self.has_room(to, c) {
                continue;
            }
            let coming = self.coming[to];
            self.add(to, c);
            targets.push(to);
            if self.fit(copies, options, targets, left) {
                return true;
            }
            targets.pop();
            self.take(to, c, coming);
        }
        false
    }

    /// Moves or swaps targets as long as that relieves the fullest node that receives.
    fn evened(&mut self, copies: &[usize], options: &[&[usize]], mut targets: Vec<usize>) -> Vec<usize> {
        for _ in 0..4 * copies.len() {
            let share = |n: usize| self.limits.share(self.weight[n]);
            let fullest = targets.iter().copied().max_by(|&a, &b| share(a).total_cmp(&share(b)).then(b.cmp(&a)));
            let Some(change) = fullest.and_then(|full| self.relief(full, copies, options, &targets)) else { break };
            for (i, to) in change {
                targets[i] = to;
            }
            self.weight = self.layout.nodes.iter().map(|node| node.weight).collect();
            self.coming.fill((0, 0));
            copies.iter().zip(&targets).for_each(|(&c, &to)| self.add(to, c));
        }
        targets
    }

    /// The change of targets that leaves the fuller of two nodes least full, if less than `full` is now.
    fn relief(
        &self,
        full: usize,
        copies: &[usize],
        options: &[&[usize]],
        targets: &[usize],
    ) -> Option<Vec<(usize, usize)>> {
        let share = |weight: Weight| self.limits.share(weight);
        let weight = |i: usize| self.layout.copies[copies[i]].weight;
        // Whatever leaves makes room, which is not counted on.
        let fits = |i: usize, to: usize| options[i].contains(&to) && self.has_room(to, copies[i]);
        let mut best = (share(self.weight[full]), None);
        let mut consider = |fuller: f64, change: Vec<(usize, usize)>| {
            if fuller < best.0 {
                best = (fuller, Some(change));
            }
        };
        for i in (0..copies.len()).filter(|&i| targets[i] == full) {
            let without = less(self.weight[full], weight(i));
            for &to in options[i].iter().filter(|&&to| to != full && fits(i, to)) {
                let with = sum(self.weight[to], weight(i));
                consider(share(without).max(share(with)), vec![(i, to)]);
                for j in (0..copies.len()).filter(|&j| targets[j] == to && fits(j, full)) {
                    let fuller = share(sum(without, weight(j))).max(share(less(with, weight(j))));
                    consider(fuller, vec![(i, to), (j, full)]);
                }
            }
        }
        best.1
    }
}
