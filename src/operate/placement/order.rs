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
    let worth = |step: &Step| {
        let gain = now.gain(&[*step]).unwrap_or(f64::NEG_INFINITY);
        gain / now.cost_of(step.0).max(1) as f64
    };
    let mut by_worth: Vec<(f64, Step)> = waiting.iter().map(|step| (worth(step), *step)).collect();
    by_worth.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    waiting = by_worth.into_iter().map(|(_, step)| step).collect();
    let mut made = Vec::new();
    loop {
        let before = made.len();
        // One that had to wait for another comes in the next round.
        waiting.retain(|&(c, to)| {
            let possible = now.may(c, to) && now.gain(&[(c, to)]).is_some();
            if possible {
                now.put(c, to);
                made.push((c, to));
            }
            !possible
        });
        if made.len() == before {
            return made;
        }
    }
}
