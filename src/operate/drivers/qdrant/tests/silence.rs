//! Who is silent to us may live, and what was begun before may go on: what is then left alone.

use super::*;
use crate::replay::qdrant::{Cluster, Wire};

#[tokio::test]
async fn a_member_is_struck_off_only_if_nobody_hears_of_it() {
    let refused = || Ok(Answer { status: 401, body: "Must provide an API key".into() });
    let garbled = || Ok(Answer { status: 200, body: "{".into() });
    let (closed, lost) = (|| Err(ApiError::NotSent("refused".into())), || Err(ApiError::Lost("3 s".into())));
    let ghost = format!("peer-{N3}");
    // What n3's machine answers, whether we know that machine, whether the others miss it, their version.
    type Case<'a> = (&'a dyn Fn() -> Result<Answer, ApiError>, bool, bool, &'a str, Option<&'a str>);
    let cases: [Case<'_>; 11] = [
        (&refused, true, true, "1.19.0", Some("it answers, though not with what was asked for: HTTP 401")),
        (&garbled, true, true, "1.19.0", Some("it answers, though not with what was asked for")),
        (&refused, true, false, "1.16.3", Some("it answers, though not")),
        (&closed, true, false, "1.19.0", Some("the other members reach it")),
        (&lost, true, false, "1.19.0", Some("the other members reach it")),
        (&lost, false, false, "1.19.0", Some("the other members reach it")),
        (&lost, false, false, "1.16.3", Some("it has no machine to be asked")),
        (&closed, true, true, "1.19.0", None),
        (&lost, true, true, "1.19.0", None),
        (&lost, true, false, "1.16.3", None),
        (&lost, false, true, "1.19.0", None),
    ];
    for (at, (told, listed, missed, version, why)) in cases.into_iter().enumerate() {
        let nodes = healthy();
        place(&nodes, "alpha", &[(0, &[N1, N3]), (1, &[N2, N3])]);
        nodes.set(3, "", told());
        nodes.set_all(&[1, 2], "/", answer(json!({"version": version})));
        if missed {
            others_miss_n3(&nodes);
        }
        let path = format!("DELETE /cluster/peer/{N3}?force=true&timeout=10");
        nodes.set(1, &path, recorded("remove_dead_peer_force"));
        let (machines, name): (&[u8], _) = if listed { (&[1, 2, 3], "n3") } else { (&[1, 2], ghost.as_str()) };
        let came = driver(&nodes, machines).strike_off(&id(name)).await;
        let (words, asked) = (format!("case {at}: {came:?}"), nodes.changes());
        match why {
            Some(why) => {
                assert!(matches!(&came, Effect::NoEffect(told) if told.contains(why)), "{words}");
                assert_eq!(asked, Vec::<String>::new(), "{words}");
            }
            None => assert_eq!((came, asked), (Effect::InProgress, vec![format!("n1: {path}")]), "{words}"),
        }
    }
}

#[tokio::test]
async fn the_old_copy_stays_when_the_one_beside_it_died_meanwhile() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    let relocation = a_move("beta", 0, "n1", "n3");
    nodes.set(1, "POST /collections/beta/cluster?timeout=10", recorded("replicate_shard"));
    assert_eq!(driver.start_move(&call(), &relocation).await, Effect::Done(()));
    nodes.changes();
    nodes.kill(2);
    place(&nodes, "beta", &[(0, &[N1, N2, N3])]);
    let came = driver.finish_move(&call(), &relocation).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("there were 2 before the move")), "{came:?}");
    assert_eq!(nodes.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_started_is_remembered_while_it_may_run_and_no_longer() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    let relocation = a_move("alpha", 0, "n1", "n2");
    let started = || driver.memory().started.values().copied().collect::<Vec<_>>();
    // Refused at once it is none; in doubt it may run, whatever becomes of the next attempt.
    let attempts: [(&str, &[usize]); 3] =
        [("move_shard_no_quorum", &[]), ("count_shard_lost", &[1]), ("move_shard_no_quorum", &[1])];
    for (case, kept) in attempts {
        nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded(case));
        driver.start_move(&call(), &relocation).await;
        assert_eq!(started(), kept, "{case}");
    }
    // Dropped, and the look after it came too early: the next inventory tells.
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("drop_replica_during_transfer"));
    place(&nodes, "alpha", &[(0, &[N1, N2])]);
    assert_eq!(driver.finish_move(&call(), &relocation).await, Effect::InProgress);
    assert_eq!(started(), [1]);
    place(&nodes, "alpha", &[(0, &[N2])]);
    driver.inventory(Some(&id("n1"))).await.expect("its own view");
    assert_eq!(started(), [0; 0]);
}

#[tokio::test]
async fn a_move_of_a_keyed_shard_is_finished_after_a_restart() {
    let nodes = healthy();
    place(&nodes, "alpha", &[(0, &[N1, N2]), (1, &[N3]), (2, &[N2])]);
    for n in 1..=3 {
        let path = "/collections/alpha/cluster".to_string();
        let told = nodes.answers.lock().unwrap()[&(n, path.clone())].clone().expect("a view");
        let body = told.body.replace("\"shard_id\"", "\"shard_key\":\"a\",\"shard_id\"");
        nodes.set(n, &path, Ok(Answer { body, ..told }));
    }
    let driver = driver(&nodes, &[1, 2, 3]);
    driver.inventory(Some(&id("n1"))).await.expect("its own view");
    assert_eq!(driver.memory().copies[&shard("alpha", 0)], 2, "they look as if they were at rest");
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("drop_replica_during_transfer"));
    assert_eq!(driver.finish_move(&call(), &a_move("alpha", 0, "n1", "n2")).await, Effect::InProgress);
    assert_eq!(nodes.changes().len(), 1);
}

/// The way to an invented cluster of which one node's answers do not reach us, and an abort takes a minute.
struct Deaf {
    wire: Wire,
    to: Mutex<&'static str>,
}

#[async_trait]
impl Api for Deaf {
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        if address == *self.to.lock().unwrap() {
            return Err(ApiError::Lost("nothing is heard".into()));
        }
        if request.body.as_ref().is_some_and(|body| body.get("abort_transfer").is_some()) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        self.wire.ask(address, request).await
    }
}

/// Three nodes with one copy of each shard; n1 leads.
async fn invented() -> (Arc<Deaf>, Qdrant) {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    cluster.bytes_per_second = 4_000;
    let wire = Wire::new(cluster);
    let body = Some(json!({"vectors": {"size": 32}, "shard_number": 6, "replication_factor": 1}));
    let timeout = Duration::from_secs(30);
    let made = Request { method: http::Method::PUT, path: "/collections/docs".into(), body, timeout };
    assert_eq!(wire.ask("http://n1:6333", made).await.expect("an answer").status, 200);
    wire.cluster().fill("docs", 0, 1200);
    let named = |n: u8| Machine { address: format!("http://n{n}:6333"), ..machine(n) };
    let deaf = Arc::new(Deaf { wire, to: Mutex::new("") });
    let provider = NoProvider::new((1..=3).map(named).collect(), Vec::new());
    (deaf.clone(), Qdrant::new(Arc::new(provider), deaf))
}

async fn from_n2_to_n3(driver: &Qdrant) -> Move {
    let seen = driver.inventory(None).await.expect("an inventory");
    let number = seen.on(&id("n2")).next().expect("a copy").shard.shard;
    a_move("docs", number, "n2", "n3")
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_became_whole_before_it_was_called_off_stays_while_its_source_is_not_heard() {
    let (deaf, driver) = invented().await;
    let copy = from_n2_to_n3(&driver).await;
    let copies = || deaf.wire.cluster().census("docs").copies[&copy.shard.shard];
    let transfers = || deaf.wire.cluster().transfers().len();
    assert_eq!(driver.start_move(&call(), &copy).await, Effect::Done(()));
    assert_eq!((transfers(), copies()), (1, 1));
    *deaf.to.lock().unwrap() = "http://n2:6333";
    assert_eq!(driver.cancel_move(&call(), &copy).await, Effect::InProgress, "it had ended when the abort came");
    assert_eq!((transfers(), copies()), (0, 2));
    let came = driver.cancel_move(&call(), &copy).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("n2 is not there to keep its copy")), "{came:?}");
    assert_eq!(copies(), 2);
    *deaf.to.lock().unwrap() = "";
    assert_eq!(driver.cancel_move(&call(), &copy).await, Effect::Done(()));
    let census = deaf.wire.cluster().census("docs");
    assert!(census.points.len() == 1200 && census.copies.values().all(|copies| *copies == 1), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_whose_source_is_dead_is_aborted_and_its_half_copy_goes_when_the_source_is_back() {
    let (deaf, driver) = invented().await;
    let copy = from_n2_to_n3(&driver).await;
    assert_eq!(driver.start_move(&call(), &copy).await, Effect::Done(()));
    let now = deaf.wire.now();
    deaf.wire.cluster().kill(now, "n2");
    assert_eq!(driver.cancel_move(&call(), &copy).await, Effect::InProgress);
    assert_eq!(deaf.wire.cluster().transfers(), []);
    let now = deaf.wire.now();
    deaf.wire.cluster().revive(now, "n2");
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        if driver.cancel_move(&call(), &copy).await == Effect::Done(()) {
            break;
        }
    }
    assert_eq!(deaf.wire.cluster().copies_on("n3"), 2, "its own only");
    let census = deaf.wire.cluster().census("docs");
    assert!(census.points.len() == 1200 && census.lost.is_empty(), "{census:?}");
}
