//! A shard's points in memory: vectors side by side for scanning, ordered ids for copying, a digest kept up to date.
//! Pure.

use std::collections::BTreeMap;

use super::log::{Change, Op, Version, encoded_len};
use super::map::mix;

/// Memory per point besides its numbers and payload: id, version, slot, and the index entry.
const OVERHEAD: usize = 96;
/// Memory per remembered deletion.
const TOMBSTONE: usize = 48;

/// Points by id. A slot keeps its place until the point is deleted, so a scan in pieces misses no point that was
/// there from beginning to end.
pub struct Points {
    size: usize,
    index: BTreeMap<u64, u32>,
    ids: Vec<Option<u64>>,
    versions: Vec<Version>,
    vectors: Vec<f32>,
    payloads: Vec<Option<Box<[u8]>>>,
    free: Vec<u32>,
    /// Deletions of the present epoch: a late copy of an older state must not bring the point back.
    tombstones: BTreeMap<u64, Version>,
    digest: u128,
    payload_bytes: usize,
}

/// A point as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<'a> {
    pub id: u64,
    pub version: Version,
    pub vector: &'a [f32],
    pub payload: Option<&'a [u8]>,
}

impl Points {
    pub fn new(size: usize) -> Points {
        Points {
            size,
            index: BTreeMap::new(),
            ids: Vec::new(),
            versions: Vec::new(),
            vectors: Vec::new(),
            payloads: Vec::new(),
            free: Vec::new(),
            tombstones: BTreeMap::new(),
            digest: 0,
            payload_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Over ids, vectors and payloads, whatever the order they came in. Two copies with one digest hold the same.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Memory held, counted by hand so that it means the same on any machine.
    pub fn bytes(&self) -> usize {
        self.len() * self.point_bytes(0) + self.payload_bytes + self.tombstones.len() * TOMBSTONE
    }

    fn point_bytes(&self, payload: usize) -> usize {
        OVERHEAD + 4 * self.size + payload
    }

    /// Bytes the live content takes in a log.
    pub fn encoded(&self) -> usize {
        self.len() * encoded_len(self.size, 0) + self.payload_bytes + self.tombstones.len() * encoded_len(0, 0)
    }

    /// How much more memory `change` to point `id` needs; 0 when it needs none.
    pub fn growth(&self, id: u64, change: &Change) -> usize {
        let Change::Upsert { payload, .. } = change else { return 0 };
        let needed = self.point_bytes(payload.as_ref().map_or(0, Vec::len));
        let held = self.get(id).map_or(0, |p| self.point_bytes(p.payload.map_or(0, <[u8]>::len)));
        needed.saturating_sub(held)
    }

    pub fn get(&self, id: u64) -> Option<Point<'_>> {
        self.index.get(&id).map(|slot| self.at(*slot as usize, id))
    }

    fn at(&self, slot: usize, id: u64) -> Point<'_> {
        Point {
            id,
            version: self.versions[slot],
            vector: &self.vectors[slot * self.size..][..self.size],
            payload: self.payloads[slot].as_deref(),
        }
    }

    /// The version of the last write to `id` that is known, deletions of this epoch included.
    pub fn version(&self, id: u64) -> Option<Version> {
        self.get(id).map(|p| p.version).or_else(|| self.tombstones.get(&id).copied())
    }

    /// Points in order of id from `from` on.
    pub fn from(&self, from: u64) -> impl Iterator<Item = Point<'_>> {
        self.index.range(from..).map(|(id, slot)| self.at(*slot as usize, *id))
    }

    pub fn ids(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        self.index.range(from..=to).map(|(id, _)| *id)
    }

    /// Everything that a log must keep, in order of id: points, then deletions of this epoch.
    pub fn all(&self) -> impl Iterator<Item = Op> {
        let deleted = self.tombstones.iter().map(|(&id, &version)| Op { id, version, change: Change::Delete });
        self.from(0).map(|p| p.to_op()).chain(deleted)
    }

    /// The highest count used in `epoch`.
    pub fn last_seq(&self, epoch: u64) -> u64 {
        let live = self.index.values().map(|slot| self.versions[*slot as usize]);
        let all = live.chain(self.tombstones.values().copied());
        all.filter(|v| v.epoch == epoch).map(|v| v.seq).max().unwrap_or(0)
    }

    /// Deletions of earlier epochs are forgotten: requests of those epochs are refused anyway.
    pub fn forget_deletions_before(&mut self, epoch: u64) {
        self.tombstones.retain(|_, version| version.epoch >= epoch);
    }

    /// Makes the point what the operation says, whatever its version.
    pub fn put(&mut self, op: Op) {
        self.remove(op.id);
        match op.change {
            Change::Delete => {
                self.tombstones.insert(op.id, op.version);
            }
            Change::Upsert { vector, payload } => {
                self.tombstones.remove(&op.id);
                self.digest = self.digest.wrapping_add(hash(op.id, &vector, payload.as_deref()));
                self.payload_bytes += payload.as_ref().map_or(0, Vec::len);
                let slot = self.free.pop().map_or(self.ids.len(), |slot| slot as usize);
                if slot == self.ids.len() {
                    self.ids.push(None);
                    self.versions.push(Version::default());
                    self.payloads.push(None);
                    self.vectors.resize(self.vectors.len() + self.size, 0.0);
                }
                self.ids[slot] = Some(op.id);
                self.versions[slot] = op.version;
                self.payloads[slot] = payload.map(Vec::into_boxed_slice);
                self.vectors[slot * self.size..][..self.size].copy_from_slice(&vector);
                self.index.insert(op.id, slot as u32);
            }
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(slot) = self.index.remove(&id) else { return };
        let point = self.at(slot as usize, id);
        let (hash, payload) = (hash(id, point.vector, point.payload), point.payload.map_or(0, <[u8]>::len));
        self.digest = self.digest.wrapping_sub(hash);
        self.payload_bytes -= payload;
        self.ids[slot as usize] = None;
        self.payloads[slot as usize] = None;
        self.free.push(slot);
    }

    /// Compares up to `many` slots from `slot` on with `query`; returns where to go on, `None` at the end.
    pub fn scan(&self, slot: usize, many: usize, query: &[f32], best: &mut Best) -> Option<usize> {
        let end = (slot + many).min(self.ids.len());
        for at in slot..end {
            if let Some(id) = self.ids[at] {
                best.offer(id, dot(query, &self.vectors[at * self.size..][..self.size]));
            }
        }
        (end < self.ids.len()).then_some(end)
    }
}

impl Point<'_> {
    pub fn to_op(&self) -> Op {
        let change = Change::Upsert { vector: self.vector.to_vec(), payload: self.payload.map(<[u8]>::to_vec) };
        Op { id: self.id, version: self.version, change }
    }
}

/// The best `limit` of the points offered, each once.
pub struct Best {
    limit: usize,
    /// Best first.
    found: Vec<(f32, u64)>,
}

impl Best {
    pub fn new(limit: usize) -> Best {
        Best { limit, found: Vec::new() }
    }

    pub fn offer(&mut self, id: u64, score: f32) {
        let better = |held: &(f32, u64)| held.0.total_cmp(&score).reverse().then(held.1.cmp(&id)).is_lt();
        let place = self.found.partition_point(better);
        // A point that was deleted and written again during the scan may come twice.
        if place >= self.limit || self.found.iter().any(|held| held.1 == id) {
            return;
        }
        self.found.insert(place, (score, id));
        self.found.truncate(self.limit);
    }

    /// Scores and ids, best first; equal scores in order of id.
    pub fn found(self) -> Vec<(f32, u64)> {
        self.found
    }
}

/// Scales a vector to length 1, so that a dot product is the cosine. A vector of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    // One that is of length 1 already, to the last bits, is kept bit by bit.
    if length > 0.0 && (length - 1.0).abs() > 1e-6 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, so that the compiler may use wide registers.
    let ((a8, a_rest), (b8, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (x, y) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// 128 bits over one point; the digest is the sum over all.
fn hash(id: u64, vector: &[f32], payload: Option<&[u8]>) -> u128 {
    let mut state = [mix(id), mix(!id)];
    let mut word = |w: u64| {
        state[0] = mix(state[0] ^ w);
        state[1] = mix(state[1].rotate_left(23) ^ w.wrapping_mul(0x9fb2_1c65_1e98_df25));
    };
    word(vector.len() as u64);
    vector.iter().for_each(|x| word(u64::from(x.to_bits())));
    if let Some(payload) = payload {
        word(payload.len() as u64 | 1 << 63);
        for part in payload.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            word(u64::from_le_bytes(bytes));
        }
    }
    u128::from(state[0]) << 64 | u128::from(state[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upsert(id: u64, x: f32, payload: Option<&str>) -> Op {
        let change = Change::Upsert { vector: vec![x, 1.0], payload: payload.map(|p| p.into()) };
        Op { id, version: Version { epoch: 1, seq: id }, change }
    }

    fn delete(id: u64) -> Op {
        Op { id, version: Version { epoch: 1, seq: 99 }, change: Change::Delete }
    }

    #[test]
    fn the_digest_knows_content_and_not_order() {
        let of = |ops: Vec<Op>| {
            let mut points = Points::new(2);
            ops.into_iter().for_each(|op| points.put(op));
            (points.digest(), points.bytes() - points.tombstones.len() * TOMBSTONE)
        };
        let plain = of(vec![upsert(1, 0.5, None), upsert(2, 0.5, Some("{}"))]);
        let detour = of(vec![
            upsert(2, 0.1, Some("[1]")),
            upsert(3, 1.0, None),
            upsert(1, 0.5, None),
            delete(3),
            upsert(2, 0.5, Some("{}")),
        ]);
        assert_eq!(plain, detour);
        assert_ne!(plain.0, of(vec![upsert(1, 0.5, None), upsert(2, 0.5, None)]).0, "payload");
        assert_ne!(plain.0, of(vec![upsert(2, 0.5, None), upsert(1, 0.5, Some("{}"))]).0, "ids");
        assert_eq!(of(vec![upsert(1, 0.5, None), delete(1)]), (0, 0));
    }

    #[test]
    fn a_scan_in_pieces_finds_the_best_once() {
        let mut points = Points::new(2);
        (0..100).for_each(|id| points.put(upsert(id, id as f32, None)));
        let mut best = Best::new(3);
        let mut at = Some(0);
        let mut piece = 0;
        while let Some(slot) = at {
            at = points.scan(slot, 7, &[1.0, 0.0], &mut best);
            if piece == 5 {
                // Moved behind the scan's place: deleted and written again.
                points.put(delete(1));
                points.put(upsert(99, 99.0, None));
            }
            piece += 1;
        }
        assert_eq!(best.found(), [(99.0, 99), (98.0, 98), (97.0, 97)]);
    }

    #[test]
    fn normalizing_twice_is_normalizing_once() {
        let mut once = vec![3.0, -4.0, 0.25, 11.0];
        normalize(&mut once);
        let mut twice = once.clone();
        normalize(&mut twice);
        assert_eq!(once, twice);
        let mut zeros = vec![0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
