//! Stories of alerts over the whole controller: what a firing alert does at the next check, and over a restart.

use super::*;
use crate::alerts::{Notification, Told};
use crate::model::Trigger;

const ENTRIES: &str = ", alerts: [\
    {name: slow-search, matchers: ['alertname=Slow'], action: scale_up, expires: 10m}, \
    {name: upgrade, matchers: ['alertname=Upgrade'], action: hold}]";

impl Stage {
    async fn with_entries(&self) -> Controller {
        let parts = self.parts();
        let parts = Parts { config: pool(ENTRIES), ..parts };
        Controller::remembering(parts).await.expect("a journal that can be read")
    }
}

fn told(name: &str, start: Timestamp, end: Option<Timestamp>) -> Notification {
    let labels = BTreeMap::from([("alertname".to_string(), name.to_string())]);
    let told = Told { fingerprint: format!("{name}-1"), labels, starts_at: start, ends_at: end };
    Notification { receiver: "scaler".into(), alerts: vec![told], truncated: 0 }
}

impl Controller {
    async fn told(&self, notification: &Notification) {
        let now = self.eyes.clock.now();
        let matched = self.desk.hear(notification, "api 127.0.0.1", now).await.expect("a journal");
        assert_eq!(matched, [0]);
    }

    async fn settled(&mut self, stage: &Stage) {
        for _ in 0..6 {
            self.check(stage).await;
        }
    }
}

async fn alerts_told(stage: &Stage) -> Vec<String> {
    let query = HistoryQuery { kind: Some(HistoryKind::Alert), limit: 10, ..HistoryQuery::default() };
    let rows = stage.journal.history(&query).await.expect("a journal");
    rows.into_iter().map(|row| row.summary).collect()
}

#[tokio::test(start_paused = true)]
async fn an_alert_adds_a_node_at_the_next_check_and_no_second_one_over_a_restart() {
    let mut stage = Stage::of(3);
    let mut controller = stage.with_entries().await;
    controller.settled(&stage).await;
    let start = stage.clock.now();
    controller.told(&told("Slow", start, None)).await;
    controller.check(&stage).await;
    let view = controller.view.load_full();
    let decision = view.decision.as_ref().expect("a decision");
    assert_eq!((decision.action.kind(), decision.trigger), (Some(Kind::ScaleUp), Some(Trigger::Alert)), "{decision:?}");
    assert!(view.alerts[0].episodes[0].standing.starts_with("answered by decision"), "{:?}", view.alerts);
    stage.until_ended().await;
    drop(controller); // it never heard of the end

    stage.journal = Arc::new(stage.journal.reopen());
    let mut controller = stage.with_entries().await;
    controller.told(&told("Slow", start, None)).await;
    for _ in 0..15 {
        controller.check(&stage).await;
        // It is repeated as Alertmanager does.
        controller.told(&told("Slow", start, None)).await;
    }
    let operations = stage.journal.operations(&"p".into(), 10, None).await.expect("a journal");
    assert_eq!(operations.len(), 1, "one operation an episode");
    assert_eq!(controller.view.load().alerts[0].firing, 1);

    controller.told(&told("Slow", start, Some(stage.clock.now()))).await;
    controller.check(&stage).await;
    assert_eq!(controller.view.load().alerts[0].firing, 0);
    assert_eq!(stage.journal.operations(&"p".into(), 10, None).await.expect("a journal").len(), 1);
    assert_eq!(alerts_told(&stage).await, ["slow-search resolved (Slow Slow-1)", "slow-search firing (Slow Slow-1)"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_not_answered_by_an_operation_that_never_began() {
    let mut stage = Stage::of(3);
    let mut controller = stage.with_entries().await;
    controller.settled(&stage).await;
    controller.told(&told("Slow", stage.clock.now(), None)).await;
    controller.alerts = controller.desk.shown();
    let world = controller.world.as_ref().expect("it has looked");
    let Outcome { decision, memory } =
        decide::decide(&controller.policy(), &controller.memory, &controller.situation(world, None));
    assert_eq!(decision.action.kind(), Some(Kind::ScaleUp));
    stage.journal.decided(&"p".into(), &decision, &json!(memory), None).await.expect("a journal");
    drop(controller); // it died before it wrote down the operation

    stage.journal = Arc::new(stage.journal.reopen());
    let mut controller = stage.with_entries().await;
    controller.settled(&stage).await;
    stage.until_ended().await;
    let operations = stage.journal.operations(&"p".into(), 10, None).await.expect("a journal");
    assert_eq!(operations.len(), 1, "{:?}", controller.view.load().decision);
    assert!(operations[0].decision > Some(decision.id), "decided anew: {:?}", operations[0]);
}

#[tokio::test(start_paused = true)]
async fn a_holding_alert_is_a_guard_until_it_expires_or_is_resolved() {
    let stage = Stage::of(3);
    let mut controller = stage.with_entries().await;
    controller.settled(&stage).await;
    let holds = |controller: &Controller| {
        controller.view.load().guards.iter().any(|hit| hit.name == crate::model::Guard::AlertHold)
    };
    controller.told(&told("Upgrade", stage.clock.now(), None)).await;
    assert!(!holds(&controller), "the next check sees it");
    controller.check(&stage).await;
    assert!(holds(&controller));
    tokio::time::sleep(Duration::from_secs(5 * 3600)).await;
    controller.check(&stage).await;
    assert!(!holds(&controller), "nobody spoke of it for five hours");
    assert_eq!(alerts_told(&stage).await[0], "upgrade expired (Upgrade Upgrade-1)");

    // Prometheus was away until Alertmanager took it for resolved; it comes back and sends what it always sent.
    let start = stage.clock.now();
    controller.told(&told("Upgrade", start, None)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    controller.told(&told("Upgrade", start, Some(stage.clock.now()))).await;
    controller.check(&stage).await;
    assert!(!holds(&controller), "it is resolved");
    tokio::time::sleep(Duration::from_secs(300)).await;
    controller.told(&told("Upgrade", start, None)).await;
    controller.check(&stage).await;
    assert!(holds(&controller), "it fires again, with its old start");
}

#[tokio::test(start_paused = true)]
async fn a_running_controller_shows_an_alert_before_its_next_check_and_others_after_a_reload() {
    let stage = Stage::of(3);
    let config = pool(ENTRIES);
    let parts = Parts { config: config.clone(), ..stage.parts() };
    let stop = CancellationToken::new();
    let Running { handle, reloads, task, minutes: _minutes } = start(parts, stop.clone()).await.expect("a start");
    let hear = async |name: &str| {
        let notification = told(name, stage.clock.now(), None);
        handle.alerts.hear(&notification, "api 127.0.0.1", stage.clock.now()).await.expect("a journal")
    };
    let shown = async |entry: usize, firing: u32| {
        while handle.view.load().alerts.get(entry).is_none_or(|standing| standing.firing != firing) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let soon = Duration::from_secs(1);
    assert_eq!(hear("Slow").await, [0]);
    tokio::time::timeout(soon, shown(0, 1)).await.expect("it is shown before the next check");

    assert_eq!(hear("Full").await, [0usize; 0]);
    let next = pool(
        ", alerts: [{name: full, matchers: ['alertname=Full'], action: none}, \
         {name: halt, matchers: ['alertname=Slow'], action: hold}]",
    );
    let (answer, answered) = oneshot::channel();
    let reload = Reload { eyes: stage.eyes(&next), config: next, taking: Taking::ForGood, answer };
    reloads.send(reload).await.unwrap_or_else(|_| panic!("it runs"));
    answered.await.expect("an answer").expect("a good configuration");
    tokio::time::timeout(soon, shown(1, 1)).await.expect("what fires already belongs to the new entry");
    assert_eq!(hear("Full").await, [0]);
    tokio::time::timeout(soon, shown(0, 1)).await.expect("it is shown");
    assert_eq!(handle.view.load().alerts.len(), 2, "the old entries are gone");
    stop.cancel();
    task.await.expect("an orderly end");
}
