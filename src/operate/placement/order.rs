//! In which order moves are made: the most gain for its bytes first, and nothing that would make a node heavier than
//! the heaviest was.

use super::state::{State, Step};

/// The moves that lead from where the copies were to where `end` has them. What fits into no order is left out: it is
/// planned anew once the others are made.
pub(super) fn order(end: &State) -> Vec<Step> {
    let mut now = end.clone();
    let mut waiting: Vec<Step> = (0..end.at.len()).filter(|&c| end.moved(c)).map(|c| (c, end.at[c])).collect();
    for &(c, _) in &waiting {
        now.put(c, now.home(c));
    }
    let mut made = Vec::new();
    loop {
        let worth = |&(c, to): &Step| {
            let gain = now.gain(&[(c, to)]).filter(|_| now.may(c, to))?;
            Some(gain / now.cost_of(c).max(1) as f64)
        };
        let possible = waiting.iter().enumerate().filter_map(|(i, step)| Some((worth(step)?, i)));
        let Some((_, next)) = possible.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))) else { return made };
        let (c, to) = waiting.remove(next);
        now.put(c, to);
        made.push((c, to));
    }
}
