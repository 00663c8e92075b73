//! A drop that comes late: whether what it leaves behind is a death's, or somebody's fault.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bench::paused;
use crate::model::{Move, ShardId};
use crate::replay::deeds::Deed;
use crate::replay::nature::Blow;
use crate::replay::world::Due;
use crate::replay::{World, node};

const STEP: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Event {
    TargetDies,
    CalledOff,
}

/// The drop of a source's copy is asked for and stays on its way while these happen, ten seconds apart; what it broke then.
async fn broken_after(events: &[Event]) -> Option<String> {
    let world = World::new(3, 1, 2);
    let (from, to) = (node(1), node(3));
    let shard = ShardId { collection: "docs".into(), shard: 0 };
    let copy = Move { shard, from, to: to.clone(), bytes: 1, vectors: 1 };
    let asked = Instant::now();
    let due = Due { at: asked + 6 * STEP, asked, after_death: None, deed: Deed::Finish(copy.clone()), fence: 0 };
    {
        let mut state = world.state();
        state.judge("the beginning");
        state.due.push(due);
    }
    for event in events {
        sleep(STEP).await;
        match event {
            Event::TargetDies => {
                world.strikes(&to, Blow::Dies);
                world.strikes(&to, Blow::ComesBack);
            }
            Event::CalledOff => drop(world.state().act(&Deed::Cancel(copy.clone()))),
        }
    }
    sleep(6 * STEP).await;
    world.state().laws.broken().map(str::to_string)
}

#[test]
fn a_late_drop_is_excused_by_a_death_before_its_move_was_called_off() {
    use Event::{CalledOff, TargetDies};
    let cases: [(&[Event], bool); 6] = [
        (&[], false),
        (&[TargetDies], true),
        (&[TargetDies, CalledOff], true),
        (&[TargetDies, CalledOff, TargetDies, CalledOff], true),
        (&[CalledOff], false),
        (&[CalledOff, TargetDies, CalledOff], false),
    ];
    for (events, is_excused) in cases {
        let broken = paused().block_on(broken_after(events));
        assert_eq!(broken.is_none(), is_excused, "{events:?}: {broken:?}");
        assert!(broken.is_none_or(|law| law.contains("1 whole copies after finish, it had 2")), "{events:?}");
    }
}
